/*
 * syncd-ssh — the SSH client in a process of its own: standard input and output are carried to a command on another host.
 *
 *   syncd-ssh [-p port] [-i identity] [-k known_hosts] [-t connect-timeout-ms] -- [user@]host command
 *
 * It holds libssh2 and nothing else of syncd. After authentication it gives up everything but reading and writing what it has
 * open (seccomp, and Landlock where the kernel has it), so that a hole in the SSH library reaches no file.
 *
 * libssh2 loses its way when a packet could be sent in part only and another is to follow. Its output therefore
 * goes to a buffer of ours (the send callback takes all), which is flushed to the socket as that takes it.
 *
 * libssh2 has each block of 16 bytes encrypted by a call of its own, for which libcrypto takes many times what the encryption takes:
 * see syncd/key_stream.h.
 *
 * Algorithms are pinned: what Debian's libssh2 lacks fixes for (ChaCha20-Poly1305, CBC, EtM, compression) is never offered.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libssh2.h>
#include <linux/landlock.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <poll.h>
#include <pwd.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "merkle/hash.h"
#include "syncd/key_stream.h"
#include "syncd/known_hosts.h"
#include "transfer/transport.h"

#define KEX "curve25519-sha256,curve25519-sha256@libssh.org"
#define HOST_KEYS "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521"
#define CIPHERS "aes256-ctr,aes128-ctr"
#define MACS "hmac-sha2-256,hmac-sha2-512"
#define MACS_WITHOUT_SHA "hmac-sha2-512,hmac-sha2-256" /* its blocks are longer: faster where the processor has no SHA extensions */

#define WINDOW_BYTES (8u * 1024 * 1024) /* what the far side may send ahead: so much every round trip */
#define QUEUE_HIGH (256 * 1024) /* bytes that wait for the socket, or for stdout, above which no more is taken from the other side */
#define PACKET_BYTES 32700	/* libssh2 sends so much in a packet */
#define PUMP_BYTES (4 * PACKET_BYTES)
#define KEEPALIVE_S 15
#define DEAD_NS (60 * CLOCK_NS_PER_S) /* no byte from the server for so long: it is gone */

/* What waits to be written. */
struct queue {
	struct buf bytes;
	size_t at; /* of these were written: taken out at times only, as that moves the rest */
};

struct client {
	const char *user, *host, *command, *identity, *known_hosts;
	uint16_t port;
	int64_t deadline_ns; /* for everything up to the running command */
	int sock;
	OSSL_PROVIDER *provider; /* of AES, or NULL */
	LIBSSH2_SESSION *session;
	LIBSSH2_CHANNEL *channel;
	bool starting;	     /* the command was asked for: the answer is due … */
	uint64_t start_received; /* … and was not among what had been received by then */
	struct queue out;    /* for the socket */
	uint64_t received;   /* bytes from it */
	int64_t heard_ns;
	struct known_hosts *known;
};

__attribute__((noreturn, format(printf, 2, 3))) static void fail(int code, const char *fmt, ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	log_error("%s", text);
	exit(code);
}

static const char *ssh_error(struct client *c)
{
	char *text = NULL;

	libssh2_session_last_error(c->session, &text, NULL, 0);
	return text && *text ? text : "no reason given";
}

/* --- what waits --- */

static size_t queue_bytes(const struct queue *q)
{
	return q->bytes.len - q->at;
}

static const uint8_t *queue_first(const struct queue *q)
{
	return q->bytes.data + q->at;
}

static void queue_written(struct queue *q, size_t n)
{
	q->at += n;
	if (q->at >= queue_bytes(q)) {
		buf_consume(&q->bytes, q->at);
		q->at = 0;
	}
}

/* --- the socket --- */

static ssize_t take_all(libssh2_socket_t sock, const void *p, size_t n, int flags, void **abstract)
{
	struct client *c = *abstract;

	(void)sock;
	(void)flags;
	put_bytes(&c->out.bytes, p, n);
	return buf_error(&c->out.bytes) ? -ENOMEM : (ssize_t)n;
}

static ssize_t count_received(libssh2_socket_t sock, void *p, size_t n, int flags, void **abstract)
{
	struct client *c = *abstract;
	ssize_t got = recv(sock, p, n, flags);

	if (got < 0)
		return -errno;
	c->received += (uint64_t)got;
	c->heard_ns = clock_monotonic_ns();
	return got;
}

static void flush(struct client *c)
{
	while (queue_bytes(&c->out)) {
		ssize_t n = send(c->sock, queue_first(&c->out), queue_bytes(&c->out), MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0)
			fail(TRANSPORT_EXIT_CONNECT, "lost the connection to %s: %s", c->host, strerror(errno));
		queue_written(&c->out, (size_t)n);
	}
}

static int left_ms(const struct client *c)
{
	int64_t ms = (c->deadline_ns - clock_monotonic_ns()) / CLOCK_NS_PER_MS;

	return ms < 0 ? 0 : ms > 60000 ? 60000 : (int)ms;
}

/* Wait until the socket can go on; the connection's deadline ends it. */
static void wait_socket(struct client *c)
{
	struct pollfd p = {.fd = c->sock, .events = POLLIN};

	flush(c);
	if (queue_bytes(&c->out))
		p.events |= POLLOUT;
	if (poll(&p, 1, left_ms(c)) == 0 && !left_ms(c))
		fail(TRANSPORT_EXIT_CONNECT, "%s did not answer in time", c->host);
	flush(c);
}

/* Run a libssh2 call until it no longer says that it would block. */
#define COMPLETE(c, call)                                                                          \
	({                                                                                         \
		int complete_r_;                                                                   \
		while ((complete_r_ = (call)) == LIBSSH2_ERROR_EAGAIN)                             \
			wait_socket(c);                                                            \
		flush(c);                                                                          \
		complete_r_;                                                                       \
	})

static int connect_one(struct client *c, const struct addrinfo *a)
{
	struct pollfd p = {.events = POLLOUT};
	int error = 0, one = 1;
	socklen_t n = sizeof(error);

	p.fd = socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
	if (p.fd < 0)
		return -errno;
	if (connect(p.fd, a->ai_addr, a->ai_addrlen) < 0 && errno != EINPROGRESS)
		error = errno;
	else if (poll(&p, 1, left_ms(c)) != 1)
		error = ETIMEDOUT;
	else
		getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &error, &n);
	if (error) {
		close(p.fd);
		return -error;
	}
	setsockopt(p.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->sock = p.fd;
	return 0;
}

static void connect_host(struct client *c)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
	char port[8];
	int r, error = -EHOSTUNREACH;

	snprintf(port, sizeof(port), "%u", c->port);
	r = getaddrinfo(c->host, port, &hints, &list);
	if (r != 0)
		fail(TRANSPORT_EXIT_RESOLVE, "cannot find host %s: %s", quoted(c->host), gai_strerror(r));
	for (const struct addrinfo *a = list; a && error < 0; a = a->ai_next)
		error = connect_one(c, a);
	freeaddrinfo(list);
	if (error < 0)
		fail(TRANSPORT_EXIT_CONNECT, "cannot connect to %s port %u: %s", c->host, c->port, strerror(-error));
}

/* --- the host's key --- */

static void home_file(char *ret, size_t cap, const char *name)
{
	const char *home = getenv("HOME");
	const struct passwd *pw = home ? NULL : getpwuid(getuid());

	snprintf(ret, cap, "%s/.ssh/%s", home ? home : pw ? pw->pw_dir : "", name);
}

static void read_known_hosts(struct client *c)
{
	char file[4096];

	if (known_hosts_new(&c->known) < 0)
		fail(TRANSPORT_EXIT_PROTOCOL, "out of memory");
	if (c->known_hosts) {
		int r = known_hosts_read(c->known, c->known_hosts, c->host, c->port);

		if (r < 0)
			fail(TRANSPORT_EXIT_HOST_KEY, "cannot read %s: %s", quoted(c->known_hosts), strerror(-r));
		return;
	}
	home_file(file, sizeof(file), "known_hosts");
	known_hosts_read(c->known, file, c->host, c->port);
	known_hosts_read(c->known, "/etc/ssh/ssh_known_hosts", c->host, c->port);
}

/* Ask first for the key types that are known for this host. */
static void prefer_known_types(struct client *c, char *ret, size_t cap)
{
	const char *type, *all = HOST_KEYS;
	size_t at = 0;

	ret[0] = 0;
	for (size_t i = 0; (type = known_hosts_type(c->known, i)); i++) {
		const char *found = strstr(all, type);

		if (found && at + strlen(type) + 2 < cap)
			at += (size_t)snprintf(ret + at, cap - at, "%s%s", at ? "," : "", type);
	}
	if (!at)
		snprintf(ret, cap, "%s", all);
}

static void fingerprint(const char *blob, size_t n, char *ret)
{
	uint8_t digest[32];
	size_t length;

	EVP_Q_digest(NULL, "SHA256", NULL, blob, n, digest, NULL);
	length = (size_t)EVP_EncodeBlock((unsigned char *)ret, digest, sizeof(digest));
	while (length && ret[length - 1] == '=')
		ret[--length] = 0;
}

static void check_host_key(struct client *c)
{
	size_t n;
	int type;
	const char *blob = libssh2_session_hostkey(c->session, &n, &type);
	char print[64] = "";
	char port[16] = "";
	int r = blob ? known_hosts_check(c->known, blob, n) : -EINVAL;

	if (r == 0)
		return;
	if (r < 0)
		fail(TRANSPORT_EXIT_HOST_KEY, "%s has no usable host key", c->host);
	fingerprint(blob, n, print);
	if (c->port != 22)
		snprintf(port, sizeof(port), "-p %u ", c->port);
	if (r == KNOWN_HOSTS_UNKNOWN)
		fail(TRANSPORT_EXIT_HOST_KEY,
			"the host key of %s is not known (SHA256:%s); check it, then accept it with: ssh %s%s true", c->host, print,
			port, c->host);
	if (r == KNOWN_HOSTS_REVOKED)
		fail(TRANSPORT_EXIT_HOST_KEY, "the host key of %s is revoked (SHA256:%s)", c->host, print);
	fail(TRANSPORT_EXIT_HOST_KEY,
		"the host key of %s has changed (now SHA256:%s): someone may be listening in; if the change is legitimate, remove the "
		"old one with: ssh-keygen -R %s",
		c->host, print, c->host);
}

/* --- authentication --- */

static bool try_identity(struct client *c, const char *file)
{
	if (access(file, R_OK) != 0)
		return false;
	return COMPLETE(c, libssh2_userauth_publickey_fromfile_ex(c->session, c->user, (unsigned)strlen(c->user), NULL, file,
				   "")) == 0;
}

static bool try_agent(struct client *c)
{
	struct libssh2_agent_publickey *key = NULL, *next;
	LIBSSH2_AGENT *agent = getenv("SSH_AUTH_SOCK") ? libssh2_agent_init(c->session) : NULL;
	bool done = false;

	if (!agent)
		return false;
	if (libssh2_agent_connect(agent) == 0 && libssh2_agent_list_identities(agent) == 0) {
		while (!done && libssh2_agent_get_identity(agent, &next, key) == 0) {
			key = next;
			done = COMPLETE(c, libssh2_agent_userauth(agent, c->user, key)) == 0;
		}
		libssh2_agent_disconnect(agent);
	}
	libssh2_agent_free(agent);
	return done;
}

static void authenticate(struct client *c)
{
	static const char *const names[] = {"id_ed25519", "id_ecdsa"};
	char file[4096];

	if (c->identity) {
		if (access(c->identity, R_OK) != 0)
			fail(TRANSPORT_EXIT_AUTH, "cannot read the identity file %s: %s", quoted(c->identity), strerror(errno));
		if (try_identity(c, c->identity))
			return;
		fail(TRANSPORT_EXIT_AUTH,
			"%s@%s did not accept the key %s (it must be ed25519 or ecdsa, without a passphrase; others: use the agent, or "
			"transport = ssh)",
			c->user, c->host, quoted(c->identity));
	}
	if (try_agent(c))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		home_file(file, sizeof(file), names[i]);
		if (try_identity(c, file))
			return;
	}
	fail(TRANSPORT_EXIT_AUTH, "%s@%s accepted no key: name one with -i, or add it to the ssh agent", c->user, c->host);
}

/* --- the session --- */

static void open_session(struct client *c)
{
	/* ISO C has no cast from function to object pointers; libssh2's interface asks for one. */
	const union {
		ssize_t (*function)(libssh2_socket_t, const void *, size_t, int, void **);
		void *object;
	} send_callback = {.function = take_all};
	const union {
		ssize_t (*function)(libssh2_socket_t, void *, size_t, int, void **);
		void *object;
	} receive_callback = {.function = count_received};
	const char *macs = hash_algorithm_usual() == HASH_SHA256 ? MACS : MACS_WITHOUT_SHA;
	char types[512];

	if (key_stream_install(&c->provider) != 0)
		log_debug("libcrypto's AES is used as it is");
	if (libssh2_init(0) != 0 || !(c->session = libssh2_session_init_ex(NULL, NULL, NULL, c)))
		fail(TRANSPORT_EXIT_PROTOCOL, "cannot start libssh2");
	libssh2_session_set_blocking(c->session, 0);
	libssh2_session_callback_set(c->session, LIBSSH2_CALLBACK_SEND, send_callback.object);
	libssh2_session_callback_set(c->session, LIBSSH2_CALLBACK_RECV, receive_callback.object);
	libssh2_session_flag(c->session, LIBSSH2_FLAG_COMPRESS, 0);
	prefer_known_types(c, types, sizeof(types));
	if (libssh2_session_method_pref(c->session, LIBSSH2_METHOD_KEX, KEX) != 0 ||
			libssh2_session_method_pref(c->session, LIBSSH2_METHOD_HOSTKEY, types) != 0 ||
			libssh2_session_method_pref(c->session, LIBSSH2_METHOD_CRYPT_CS, CIPHERS) != 0 ||
			libssh2_session_method_pref(c->session, LIBSSH2_METHOD_CRYPT_SC, CIPHERS) != 0 ||
			libssh2_session_method_pref(c->session, LIBSSH2_METHOD_MAC_CS, macs) != 0 ||
			libssh2_session_method_pref(c->session, LIBSSH2_METHOD_MAC_SC, macs) != 0)
		fail(TRANSPORT_EXIT_PROTOCOL, "libssh2 lacks the algorithms that syncd insists on: %s", ssh_error(c));
	if (COMPLETE(c, libssh2_session_handshake(c->session, c->sock)) != 0)
		fail(TRANSPORT_EXIT_PROTOCOL, "SSH with %s port %u failed: %s", c->host, c->port, ssh_error(c));
}

/* Asks for the command, at first; then looks for the answer. */
static void exec_step(struct client *c)
{
	int r = libssh2_channel_exec(c->channel, c->command);

	if (r != 0 && r != LIBSSH2_ERROR_EAGAIN)
		fail(TRANSPORT_EXIT_COMMAND, "%s does not run %s: %s", c->host, quoted(c->command), ssh_error(c));
	c->starting = r != 0;
	c->start_received = c->received;
}

static void start_command(struct client *c)
{
	while (!(c->channel = libssh2_channel_open_ex(c->session, "session", sizeof("session") - 1, WINDOW_BYTES,
			 LIBSSH2_CHANNEL_PACKET_DEFAULT, NULL, 0))) {
		if (libssh2_session_last_errno(c->session) != LIBSSH2_ERROR_EAGAIN)
			fail(TRANSPORT_EXIT_PROTOCOL, "%s opens no channel: %s", c->host, ssh_error(c));
		wait_socket(c);
	}
	/* Once it is asked for, the answer is not waited for: what the command is to read follows at once, as from OpenSSH's client. */
	for (exec_step(c); c->starting && !queue_bytes(&c->out); exec_step(c))
		wait_socket(c);
	libssh2_keepalive_config(c->session, 1, KEEPALIVE_S);
}

/* --- giving up what is not needed any more --- */

static void landlock_everything(void)
{
	struct landlock_ruleset_attr attr = {
		.handled_access_fs = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE |
				     LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
				     LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
				     LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
				     LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM,
	};
	long fd = syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);

	if (fd < 0)
		return; /* a kernel without it: seccomp still stands */
	syscall(SYS_landlock_restrict_self, fd, 0);
	close((int)fd);
}

static void confine(void)
{
	static const int allowed[] = {
		SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(recvfrom), SCMP_SYS(sendto),
		SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(close), SCMP_SYS(brk),
		SCMP_SYS(mmap), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(mprotect), SCMP_SYS(futex),
		SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(getrandom), SCMP_SYS(getpid),
		SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(shutdown),
		SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(restart_syscall), SCMP_SYS(sigaltstack),
	};
	scmp_filter_ctx filter;

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	landlock_everything();
	filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	if (!filter)
		fail(TRANSPORT_EXIT_PROTOCOL, "cannot set up seccomp");
	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0);
	if (seccomp_load(filter) != 0)
		fail(TRANSPORT_EXIT_PROTOCOL, "cannot set up seccomp");
	seccomp_release(filter);
}

/* --- carrying bytes --- */

/*
 * libssh2 takes from the socket all that is there, in whichever call, and deals with it: data for the channel, room in the far side's
 * window, an exchange of keys. poll tells of none of it afterwards. So a call that could do nothing is made again when anything was
 * received since, by another call perhaps; only when nothing was is the socket waited for.
 */
struct pump {
	char in[PUMP_BYTES]; /* from stdin, for the channel */
	size_t in_n, in_at;
	bool in_over, eof_sent;
	bool in_blocked;      /* the channel takes nothing */
	uint64_t in_received; /* by the client, when that was found */
	struct queue out;     /* from the channel, for stdout */
	bool out_over;	      /* our reader is gone */
	bool more;	      /* the channel may have more than was taken */
	uint64_t out_received; /* when it had not */
};

static bool would_block(struct client *c, struct pump *p, ssize_t result)
{
	p->in_blocked = result == LIBSSH2_ERROR_EAGAIN;
	p->in_received = c->received;
	return p->in_blocked;
}

/* stdin → channel. */
static void pump_in(struct client *c, struct pump *p)
{
	while (queue_bytes(&c->out) < QUEUE_HIGH) {
		if (p->in_at == p->in_n && !p->in_over) {
			ssize_t n = read(0, p->in, sizeof(p->in));

			if (n < 0 && (errno == EAGAIN || errno == EINTR))
				return;
			p->in_over = n <= 0;
			p->in_n = n > 0 ? (size_t)n : 0;
			p->in_at = 0;
		}
		if (p->in_at < p->in_n) {
			ssize_t n = libssh2_channel_write(c->channel, p->in + p->in_at, p->in_n - p->in_at);

			if (would_block(c, p, n)) /* the far side's window is full, or keys are being exchanged */
				return;
			if (n < 0)
				fail(TRANSPORT_EXIT_PROTOCOL, "cannot send to %s: %s", c->host, ssh_error(c));
			p->in_at += (size_t)n;
			continue;
		}
		if (p->in_over && !p->eof_sent)
			p->eof_sent = !would_block(c, p, libssh2_channel_send_eof(c->channel));
		return;
	}
}

/* channel → stdout, and its stderr → ours. Stops while stdout does not take more. */
static void pump_out(struct client *c, struct pump *p)
{
	char text[4096];
	ssize_t n;

	p->more = true;
	while (queue_bytes(&p->out) < QUEUE_HIGH) {
		uint8_t *room = buf_reserve(&p->out.bytes, PUMP_BYTES);

		if (!room)
			fail(TRANSPORT_EXIT_PROTOCOL, "out of memory");
		n = libssh2_channel_read(c->channel, (char *)room, PUMP_BYTES);
		p->out.bytes.len -= n > 0 ? PUMP_BYTES - (size_t)n : PUMP_BYTES;
		if (n == LIBSSH2_ERROR_EAGAIN || n == 0) {
			p->more = false;
			p->out_received = c->received;
			break;
		}
		if (n < 0)
			fail(TRANSPORT_EXIT_CONNECT, "lost the connection to %s: %s", c->host, ssh_error(c));
	}
	while ((n = libssh2_channel_read_stderr(c->channel, text, sizeof(text))) > 0)
		if (write(2, text, (size_t)n) < 0)
			break;
	while (queue_bytes(&p->out) && !p->out_over) {
		n = write(1, queue_first(&p->out), queue_bytes(&p->out));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			p->out_over = true;
		else
			queue_written(&p->out, (size_t)n);
	}
}

static bool is_ready(const struct client *c, const struct pump *p)
{
	bool to_send = p->in_at < p->in_n || (p->in_over && !p->eof_sent);

	return (c->starting && c->start_received != c->received) ||
	       (queue_bytes(&p->out) < QUEUE_HIGH && (p->more || p->out_received != c->received)) ||
	       (queue_bytes(&c->out) < QUEUE_HIGH && to_send && (!p->in_blocked || p->in_received != c->received));
}

static void wait_for_more(struct client *c, struct pump *p)
{
	struct pollfd polls[3] = {
		{.fd = c->sock, .events = (short)(POLLIN | (queue_bytes(&c->out) ? POLLOUT : 0))},
		{.fd = !p->in_over && p->in_at == p->in_n && queue_bytes(&c->out) < QUEUE_HIGH ? 0 : -1, .events = POLLIN},
		{.fd = queue_bytes(&p->out) ? 1 : -1, .events = POLLOUT},
	};
	int seconds = KEEPALIVE_S;

	if (queue_bytes(&p->out) >= QUEUE_HIGH) { /* our own reader is slow: nobody listens */
		polls[0].events &= ~POLLIN;
		c->heard_ns = clock_monotonic_ns();
	}
	libssh2_keepalive_send(c->session, &seconds);
	seconds = seconds > 0 && seconds < KEEPALIVE_S ? seconds : KEEPALIVE_S;
	poll(polls, 3, c->starting && left_ms(c) < seconds * 1000 ? left_ms(c) : seconds * 1000);
	if (c->starting && !left_ms(c))
		fail(TRANSPORT_EXIT_CONNECT, "%s did not answer in time", c->host);
	if (clock_monotonic_ns() - c->heard_ns > DEAD_NS)
		fail(TRANSPORT_EXIT_CONNECT, "nothing was heard from %s for %d s", c->host, (int)(DEAD_NS / CLOCK_NS_PER_S));
}

static int carry(struct client *c)
{
	static struct pump p;
	int status;

	c->heard_ns = clock_monotonic_ns();
	for (;;) {
		if (c->starting)
			exec_step(c);
		pump_in(c, &p);
		pump_out(c, &p);
		flush(c);
		if (libssh2_channel_eof(c->channel) && !queue_bytes(&p.out))
			break;
		if (p.out_over)
			break;
		if (!is_ready(c, &p))
			wait_for_more(c, &p);
	}
	c->deadline_ns = clock_monotonic_ns() + 5 * CLOCK_NS_PER_S;
	COMPLETE(c, libssh2_channel_close(c->channel));
	COMPLETE(c, libssh2_channel_wait_closed(c->channel));
	status = libssh2_channel_get_exit_status(c->channel);
	COMPLETE(c, libssh2_session_disconnect(c->session, "done"));
	if (status == 127 || status == 126)
		fail(TRANSPORT_EXIT_COMMAND, "%s has no program for %s: install syncd there, or name it with --syncctl-path", c->host,
			quoted(c->command));
	return status ? TRANSPORT_EXIT_COMMAND : 0;
}

/* --- arguments --- */

static const char usage[] = "usage: syncd-ssh [-p port] [-i identity] [-k known_hosts] [-t connect-timeout-ms] -- [user@]host command";

static void set_destination(struct client *c, char *text)
{
	char *at = strrchr(text, '@');
	const struct passwd *pw;

	if (at) {
		*at = 0;
		c->user = text;
		c->host = at + 1;
	} else {
		pw = getpwuid(getuid());
		c->user = pw ? strdup(pw->pw_name) : "root";
		c->host = text;
	}
	if (!*c->host || !*c->user)
		fail(TRANSPORT_EXIT_USAGE, "%s", usage);
}

int main(int argc, char **argv)
{
	struct client c = {.port = 22, .sock = -1};
	int64_t timeout_ms = 20000;
	int option, status;

	log_set_name("syncd-ssh");
	signal(SIGPIPE, SIG_IGN);
	while ((option = getopt(argc, argv, "p:i:k:t:")) != -1) {
		if (option == 'p')
			c.port = (uint16_t)atoi(optarg);
		else if (option == 'i')
			c.identity = optarg;
		else if (option == 'k')
			c.known_hosts = optarg;
		else if (option == 't')
			timeout_ms = atoll(optarg);
		else
			fail(TRANSPORT_EXIT_USAGE, "%s", usage);
	}
	if (argc - optind != 2 || !c.port)
		fail(TRANSPORT_EXIT_USAGE, "%s", usage);
	set_destination(&c, argv[optind]);
	c.command = argv[optind + 1];
	c.deadline_ns = clock_monotonic_ns() + timeout_ms * CLOCK_NS_PER_MS;
	read_known_hosts(&c);
	connect_host(&c);
	open_session(&c);
	check_host_key(&c);
	authenticate(&c);
	start_command(&c);
	/* The last calls that the filter would not let through. */
	fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
	fcntl(1, F_SETFL, fcntl(1, F_GETFL) | O_NONBLOCK);
	confine();
	status = carry(&c);
	OSSL_PROVIDER_unload(c.provider);
	return status;
}
