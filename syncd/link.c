/*
 * syncd/link.c — drive one session on a libuv loop.
 *
 * Reading never waits for writing: whatever is readable is read; what the session holds because of it is bounded by the
 * session. ended() is called once, from a callback of the loop, when the session is over, its output is written (or cannot be,
 * or FLUSH_NS have passed), no job runs and all handles are closed.
 *
 * With a limit, each direction takes a small portion from its bucket as it has something to move, and waits until that is earned.
 * Bytes thus move all the time, if slowly: neither side takes the other for dead. They move in order, so that a keep-alive waits
 * for no more than the session lets lie before it (AHEAD_S).
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
#define FLUSH_NS (5 * CLOCK_NS_PER_S) /* for the last words to a peer that does not read; more under a limit */
#define AHEAD_S 0.5		      /* so much of a limit's bytes are ready to be sent, or asked for */
#define AHEAD_MIN ((size_t)64 * 1024)

struct flow {
	struct bucket *bucket; /* NULL: no limit */
	size_t portion;
	size_t earned;	       /* may be moved now */
	bool waiting;	       /* for the timer: a portion was taken, and is not earned yet */
	uv_timer_t timer;
	uint64_t moved, rate;  /* bytes, when the rate was looked at last; of a second, smoothed */
};

struct link {
	struct link_options options;
	struct session *session;
	uv_poll_t in, out; /* `out` is used when fd_out is another descriptor */
	uv_timer_t timer;
	struct flow up, down;
	bool two;	   /* two descriptors */
	bool socket_in, socket_out;
	int events_in, events_out;
	unsigned jobs;	   /* running */
	unsigned handles;  /* open */
	bool broken;	   /* the stream can't be written any more */
	bool input_over;
	bool closing;
	bool ended;
	int64_t flush_ns;  /* the session has ended: until when its last words are written */
};

struct work {
	uv_work_t request;
	struct link *link;
	struct session_job *job;
};

static void on_poll_in(uv_poll_t *handle, int status, int events);
static void on_poll_out(uv_poll_t *handle, int status, int events);
static void on_earned(uv_timer_t *timer);

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
	if (l->up.bucket)
		uv_close((uv_handle_t *)&l->up.timer, on_closed);
	if (l->down.bucket)
		uv_close((uv_handle_t *)&l->down.timer, on_closed);
}

/* --- limits --- */

void link_limits_init(struct link_limits *l, uint64_t up, uint64_t down, struct link_limits *above)
{
	*l = (struct link_limits){
		.up = {.rate = up, .above = above ? &above->up : NULL},
		.down = {.rate = down, .above = above ? &above->down : NULL},
	};
}

/* How many of n bytes may be moved now. 0: link_kick is called when it is more. */
static size_t flow_allows(struct flow *f, size_t n)
{
	int64_t wait;

	if (!f->bucket)
		return n;
	if (!f->earned && !f->waiting) {
		wait = bucket_take(f->bucket, f->portion, clock_monotonic_ns());
		if (wait) {
			f->waiting = true;
			uv_timer_start(&f->timer, on_earned, (uint64_t)(wait / CLOCK_NS_PER_MS + 1), 0);
		} else {
			f->earned = f->portion;
		}
	}
	return n < f->earned ? n : f->earned;
}

static void flow_moved(struct flow *f, size_t n)
{
	if (f->bucket)
		f->earned -= n;
}

static void flow_init(struct link *l, struct flow *f, struct bucket *bucket)
{
	if (!bucket_rate(bucket))
		return;
	f->bucket = bucket;
	f->portion = (size_t)bucket_portion(bucket);
	f->timer.data = l;
	uv_timer_init(l->options.loop, &f->timer);
	l->handles++;
}

/* Called each second. */
static void flow_look(struct flow *f, uint64_t moved)
{
	f->rate = (3 * f->rate + (moved - f->moved)) / 4;
	f->moved = moved;
}

static size_t ahead(const struct bucket *bucket, size_t most)
{
	double bytes = (double)bucket_rate(bucket) * AHEAD_S;

	if (bytes <= 0 || bytes > (double)most)
		return most;
	return bytes < (double)AHEAD_MIN ? AHEAD_MIN : (size_t)bytes;
}

/* --- jobs --- */

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

		n = n ? flow_allows(&l->up, n) : 0;
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
		flow_moved(&l->up, (size_t)written);
		session_output_consumed(l->session, (size_t)written);
	}
}

static void update_polls(struct link *l)
{
	size_t pending;
	int in = l->input_over || l->down.waiting ? 0 : UV_READABLE, out;

	session_output(l->session, &pending);
	out = pending && !l->broken && !l->up.waiting ? UV_WRITABLE : 0;
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

/* The session has just ended: how long to go on with n bytes of last words. */
static int64_t flush_time(const struct link *l, size_t n)
{
	uint64_t rate = bucket_rate(l->up.bucket);

	return FLUSH_NS + (rate ? (int64_t)(2 * n / rate) * CLOCK_NS_PER_S : 0);
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
	session_output(l->session, &pending);
	if (!l->flush_ns)
		l->flush_ns = clock_monotonic_ns() + flush_time(l, pending);
	if (!l->jobs && (!pending || l->broken || clock_monotonic_ns() > l->flush_ns)) {
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
		size_t most = flow_allows(&l->down, sizeof(bytes));
		ssize_t n;

		if (!most)
			return;
		n = l->socket_in ? recv(l->options.fd_in, bytes, most, MSG_DONTWAIT) : read(l->options.fd_in, bytes, most);
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
		flow_moved(&l->down, (size_t)n);
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

static void on_earned(uv_timer_t *timer)
{
	struct link *l = timer->data;
	struct flow *f = timer == &l->up.timer ? &l->up : &l->down;

	f->waiting = false;
	f->earned = f->portion;
	link_kick(l); /* what is readable is read when the poll says so */
}

static void on_timer(uv_timer_t *timer)
{
	struct link *l = timer->data;
	struct session_status status;

	session_status(l->session, &status);
	flow_look(&l->up, status.bytes_out);
	flow_look(&l->down, status.bytes_in);
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
	if (options->limits) {
		l->options.session.output_high = ahead(&options->limits->up, SESSION_OUTPUT_HIGH);
		l->options.session.window_bytes = ahead(&options->limits->down, SESSION_WINDOW_BYTES);
		if (bucket_rate(&options->limits->up) || bucket_rate(&options->limits->down))
			l->options.session.plain = false; /* its bytes count */
	}
	r = make_nonblocking(&l->options.fd_in, l->two ? O_RDONLY : O_RDWR, &l->socket_in);
	if (r == 0 && l->two)
		r = make_nonblocking(&l->options.fd_out, O_WRONLY, &l->socket_out);
	else
		l->socket_out = l->socket_in;
	if (r == 0)
		r = session_new(&l->session, &l->options.session);
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
	if (options->limits) {
		flow_init(l, &l->up, &options->limits->up);
		flow_init(l, &l->down, &options->limits->down);
	}
	*ret = l;
	update_polls(l);
	link_kick(l);
	return 0;
}

struct session *link_session(const struct link *l)
{
	return l->session;
}

void link_rates(const struct link *l, struct link_rates *ret)
{
	*ret = (struct link_rates){
		.up = l->up.rate,
		.down = l->down.rate,
		.limit_up = bucket_rate(l->up.bucket),
		.limit_down = bucket_rate(l->down.bucket),
	};
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
