/*
 * syncd/link.c — drive one session on a libuv loop.
 *
 * Reading never waits for writing: whatever is readable is read; what the session holds because of it is bounded by the
 * session. ended() is called once, from a callback of the loop, when the session is over, its output is written (or cannot be,
 * or FLUSH_NS have passed), no job runs and all handles are closed.
 */
#include "syncd/link.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"

#define READ_BYTES 65536
#define READS_PER_TURN 16
#define FLUSH_NS (5 * CLOCK_NS_PER_S) /* for the last words to a peer that does not read */

struct link {
	struct link_options options;
	struct session *session;
	uv_poll_t in, out; /* `out` is used when fd_out is another descriptor */
	uv_timer_t timer;
	bool two;	   /* two descriptors */
	bool socket_in, socket_out;
	int events_in, events_out;
	unsigned jobs;	   /* running */
	unsigned handles;  /* open */
	bool broken;	   /* the stream can't be written any more */
	bool input_over;
	bool closing;
	bool ended;
	int64_t over_ns;   /* when the session ended */
};

struct work {
	uv_work_t request;
	struct link *link;
	struct session_job *job;
};

static void on_poll_in(uv_poll_t *handle, int status, int events);
static void on_poll_out(uv_poll_t *handle, int status, int events);

static bool session_over(const struct link *l)
{
	struct session_status status;

	session_status(l->session, &status);
	return status.state == SESSION_ENDED;
}

static void on_closed(uv_handle_t *handle)
{
	struct link *l = handle->data;

	if (--l->handles)
		return;
	close_keep(l->options.fd_in);
	if (l->two)
		close_keep(l->options.fd_out);
	l->ended = true;
	l->options.ended(l, l->options.data);
}

static void close_handles(struct link *l)
{
	if (l->closing)
		return;
	l->closing = true;
	uv_close((uv_handle_t *)&l->in, on_closed);
	if (l->two)
		uv_close((uv_handle_t *)&l->out, on_closed);
	uv_close((uv_handle_t *)&l->timer, on_closed);
}

static void run_job(uv_work_t *request)
{
	struct work *work = (struct work *)request->data;

	session_job_run(work->job);
}

static void job_done(uv_work_t *request, int status)
{
	struct work *work = request->data;
	struct link *l = work->link;

	(void)status;
	l->jobs--;
	session_job_done(l->session, work->job);
	free(work);
	link_kick(l);
}

static void start_jobs(struct link *l)
{
	struct session_job *job;

	while ((job = session_next_job(l->session))) {
		struct work *work = calloc(1, sizeof(*work));

		if (!work || (work->request.data = work, work->link = l, work->job = job,
				     uv_queue_work(l->options.loop, &work->request, run_job, job_done) < 0)) {
			/* No memory for a thread's errand: do it here. */
			free(work);
			session_job_run(job);
			session_job_done(l->session, job);
			continue;
		}
		l->jobs++;
	}
}

static void write_output(struct link *l)
{
	while (!l->broken) {
		size_t n;
		const uint8_t *p = session_output(l->session, &n);
		ssize_t written;

		if (!n)
			return;
		written = l->socket_out ? send(l->options.fd_out, p, n, MSG_DONTWAIT | MSG_NOSIGNAL) : write(l->options.fd_out, p, n);
		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0 && errno == EAGAIN)
			return;
		if (written < 0) {
			l->broken = true; /* why is known when reading ends */
			return;
		}
		session_output_consumed(l->session, (size_t)written);
	}
}

static void update_polls(struct link *l)
{
	size_t pending;
	int in = l->input_over ? 0 : UV_READABLE, out;

	session_output(l->session, &pending);
	out = pending && !l->broken ? UV_WRITABLE : 0;
	if (!l->two) {
		in |= out;
		out = 0;
	}
	if (in != l->events_in) {
		l->events_in = in;
		if (in)
			uv_poll_start(&l->in, in, on_poll_in);
		else
			uv_poll_stop(&l->in);
	}
	if (l->two && out != l->events_out) {
		l->events_out = out;
		if (out)
			uv_poll_start(&l->out, out, on_poll_out);
		else
			uv_poll_stop(&l->out);
	}
}

void link_kick(struct link *l)
{
	size_t pending;

	if (l->closing)
		return;
	start_jobs(l);
	write_output(l);
	start_jobs(l); /* room in the output may have made some possible */
	if (!session_over(l)) {
		update_polls(l);
		return;
	}
	if (!l->over_ns)
		l->over_ns = clock_monotonic_ns();
	session_output(l->session, &pending);
	if (!l->jobs && (!pending || l->broken || clock_monotonic_ns() - l->over_ns > FLUSH_NS)) {
		close_handles(l);
		return;
	}
	l->input_over = true;
	update_polls(l);
}

static void read_input(struct link *l)
{
	static _Thread_local uint8_t bytes[READ_BYTES];

	for (int i = 0; i < READS_PER_TURN && !l->input_over; i++) {
		ssize_t n = l->socket_in ? recv(l->options.fd_in, bytes, sizeof(bytes), MSG_DONTWAIT)
					 : read(l->options.fd_in, bytes, sizeof(bytes));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			l->input_over = true;
			l->broken = l->broken || n < 0;
			session_input_end(l->session);
			return;
		}
		session_input(l->session, bytes, (size_t)n);
		if (session_over(l))
			return;
	}
}

static void on_poll_in(uv_poll_t *handle, int status, int events)
{
	struct link *l = handle->data;

	if (status < 0 || events & UV_READABLE)
		read_input(l);
	link_kick(l);
}

static void on_poll_out(uv_poll_t *handle, int status, int events)
{
	struct link *l = handle->data;

	(void)events;
	if (status < 0)
		l->broken = true;
	link_kick(l);
}

static void on_timer(uv_timer_t *timer)
{
	struct link *l = timer->data;

	session_tick(l->session, clock_monotonic_ns());
	link_kick(l);
}

/*
 * O_NONBLOCK belongs to the open file description, which others may share: who brought the descriptor could clear it again and
 * stall the loop. Sockets are used with MSG_DONTWAIT instead; pipes are opened anew, so that the description is ours alone.
 */
static int make_nonblocking(int *fd, int mode, bool *ret_socket)
{
	struct stat st;
	char path[40];
	int own;

	if (fstat(*fd, &st) < 0)
		return -errno;
	*ret_socket = S_ISSOCK(st.st_mode);
	if (*ret_socket)
		return 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", *fd);
	own = open(path, mode | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (own < 0)
		return -errno;
	*fd = own;
	return 0;
}

/* Close what was opened anew, or, once all went well, what it was opened from. */
static void close_other(int fd, int other)
{
	if (fd != other)
		close_keep(fd);
}

int link_new(struct link **ret, const struct link_options *options)
{
	struct link *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	l->options = *options;
	l->two = options->fd_in != options->fd_out;
	r = make_nonblocking(&l->options.fd_in, l->two ? O_RDONLY : O_RDWR, &l->socket_in);
	if (r == 0 && l->two)
		r = make_nonblocking(&l->options.fd_out, O_WRONLY, &l->socket_out);
	else
		l->socket_out = l->socket_in;
	if (r == 0)
		r = session_new(&l->session, &options->session);
	l->in.data = l->out.data = l->timer.data = l;
	if (r == 0)
		r = uv_poll_init(options->loop, &l->in, l->options.fd_in);
	if (r == 0 && l->two)
		r = uv_poll_init(options->loop, &l->out, l->options.fd_out);
	if (r < 0) {
		/* A poll handle that was begun stays with the loop: it is small, and this hardly ever happens. */
		close_other(l->options.fd_in, options->fd_in);
		close_other(l->options.fd_out, options->fd_out);
		session_free(l->session);
		if (!l->in.loop)
			free(l);
		return r;
	}
	close_other(options->fd_in, l->options.fd_in);
	if (l->two)
		close_other(options->fd_out, l->options.fd_out);
	uv_timer_init(options->loop, &l->timer);
	uv_timer_start(&l->timer, on_timer, 1000, 1000);
	l->handles = l->two ? 3 : 2;
	*ret = l;
	update_polls(l);
	link_kick(l);
	return 0;
}

struct session *link_session(const struct link *l)
{
	return l->session;
}

void link_abort(struct link *l)
{
	if (l->closing)
		return;
	l->broken = true;
	session_input_end(l->session);
	link_kick(l);
}

void link_free(struct link *l)
{
	if (!l)
		return;
	assert(l->ended);
	session_free(l->session);
	free(l);
}
