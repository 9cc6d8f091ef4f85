/*
 * tests/crash/step.c — run a program, and kill -9 it before one of its calls that change a file system.
 *
 *   step [-k N] [-1] [-r FILE] PROGRAM ARGUMENT…
 *
 * Calls are counted over all processes and threads that come of the program, in the order in which they stop. Before the
 * N-th (from 1) all of them are killed; with -1 only the process that is about to make it, and the others go on. FILE gets
 * one line: how many calls there were, and the name of the one that was not made ("-": the program ended before).
 * Exit status: the program's, or 137 if it was killed. SIGTERM kills all of them at once.
 *
 * A seccomp filter stops the calls in question, and no other; ptrace sees them before they are carried out. What is read, and
 * what goes to sockets and pipes, does not count.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

enum about { ALWAYS, OPEN_FLAGS, OPEN_HOW, FILE_FD, IOCTL };

static const struct call {
	int number;
	const char *name;
	enum about about; /* what tells whether it changes a file system */
} calls[] = {
	{SYS_open, "open", OPEN_FLAGS},
	{SYS_openat, "openat", OPEN_FLAGS},
	{SYS_openat2, "openat2", OPEN_HOW},
	{SYS_creat, "creat", ALWAYS},
	{SYS_write, "write", FILE_FD},
	{SYS_writev, "writev", FILE_FD},
	{SYS_pwrite64, "pwrite64", FILE_FD},
	{SYS_pwritev, "pwritev", FILE_FD},
	{SYS_pwritev2, "pwritev2", FILE_FD},
	{SYS_copy_file_range, "copy_file_range", ALWAYS},
	{SYS_sendfile, "sendfile", ALWAYS},
	{SYS_truncate, "truncate", ALWAYS},
	{SYS_ftruncate, "ftruncate", ALWAYS},
	{SYS_fallocate, "fallocate", ALWAYS},
	{SYS_mkdir, "mkdir", ALWAYS},
	{SYS_mkdirat, "mkdirat", ALWAYS},
	{SYS_rmdir, "rmdir", ALWAYS},
	{SYS_unlink, "unlink", ALWAYS},
	{SYS_unlinkat, "unlinkat", ALWAYS},
	{SYS_link, "link", ALWAYS},
	{SYS_linkat, "linkat", ALWAYS},
	{SYS_symlink, "symlink", ALWAYS},
	{SYS_symlinkat, "symlinkat", ALWAYS},
	{SYS_mknodat, "mknodat", ALWAYS},
	{SYS_rename, "rename", ALWAYS},
	{SYS_renameat, "renameat", ALWAYS},
	{SYS_renameat2, "renameat2", ALWAYS},
	{SYS_chmod, "chmod", ALWAYS},
	{SYS_fchmod, "fchmod", ALWAYS},
	{SYS_fchmodat, "fchmodat", ALWAYS},
	{SYS_chown, "chown", ALWAYS},
	{SYS_fchown, "fchown", ALWAYS},
	{SYS_fchownat, "fchownat", ALWAYS},
	{SYS_utimensat, "utimensat", ALWAYS},
	{SYS_fsetxattr, "fsetxattr", ALWAYS},
	{SYS_fremovexattr, "fremovexattr", ALWAYS},
	{SYS_ioctl, "ioctl", IOCTL},
	{SYS_fsync, "fsync", ALWAYS},
	{SYS_fdatasync, "fdatasync", ALWAYS},
	{SYS_syncfs, "syncfs", ALWAYS},
	{SYS_sync_file_range, "sync_file_range", ALWAYS},
	{SYS_msync, "msync", ALWAYS},
};

struct run {
	uint64_t kill_at; /* 0: never */
	bool one;
	uint64_t n;	    /* calls so far */
	const char *missed; /* the call that was not made */
	pid_t program;
	int status; /* of the program, once it has ended; else -1 */
	pid_t known[1024]; /* processes */
	size_t n_known;
};

static volatile sig_atomic_t told_to_end;

static void on_term(int sig)
{
	told_to_end = sig;
}

static void die(const char *what)
{
	fprintf(stderr, "step: %s: %s\n", what, strerror(errno));
	exit(125);
}

/* --- the program's side --- */

static void filter(void)
{
	struct sock_filter code[2 * ARRAY_SIZE(calls) + 8];
	unsigned short n = 0;
	struct sock_fprog program = {.filter = code};

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[i].number, 0, 1);
		code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
	}
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	program.len = n;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		die("seccomp");
}

static pid_t start(char **argv)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid > 0)
		return pid;
	if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0)
		die("ptrace");
	raise(SIGSTOP);
	filter();
	execvp(argv[0], argv);
	die(argv[0]);
	return -1;
}

/* --- looking at a call --- */

static bool file_fd(pid_t tid, int fd)
{
	struct stat st;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)tid, fd);
	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static bool open_changes(pid_t tid, const struct user_regs_struct *regs, enum about about)
{
	struct open_how how = {0};
	struct iovec to = {&how, sizeof(how)}, from = {(void *)regs->rdx, sizeof(how)};

	if (about == OPEN_FLAGS)
		how.flags = regs->orig_rax == SYS_open ? regs->rsi : regs->rdx;
	else if (process_vm_readv(tid, &to, 1, &from, 1, 0) < 0)
		return false;
	return how.flags & (O_CREAT | O_TRUNC);
}

/* The call that the thread is about to make, if it changes a file system. */
static const struct call *change(pid_t tid)
{
	struct user_regs_struct regs;

	if (ptrace(PTRACE_GETREGS, tid, 0, &regs) < 0)
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		const struct call *c = &calls[i];

		if ((uint64_t)c->number != regs.orig_rax)
			continue;
		switch (c->about) {
		case OPEN_FLAGS:
		case OPEN_HOW:
			return open_changes(tid, &regs, c->about) ? c : NULL;
		case FILE_FD:
			return file_fd(tid, (int)regs.rdi) ? c : NULL;
		case IOCTL:
			return regs.rsi == FICLONE || regs.rsi == FICLONERANGE || regs.rsi == FS_IOC_SETFLAGS ? c : NULL;
		default:
			return c;
		}
	}
	return NULL;
}

/* --- the tracer's side --- */

static pid_t process_of(pid_t tid)
{
	char path[64], line[256];
	long tgid = tid;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Tgid: %ld", &tgid) == 1)
			break;
	if (f)
		fclose(f);
	return (pid_t)tgid;
}

/* And wait until they are gone. */
static void kill_all(struct run *r)
{
	for (size_t i = 0; i < r->n_known; i++)
		kill(r->known[i], SIGKILL);
	for (;;) {
		int status;
		pid_t tid = waitpid(-1, &status, __WALL);

		if (tid > 0 && WIFSTOPPED(status))
			kill(process_of(tid), SIGKILL); /* it was being born */
		else if (tid < 0 && errno != EINTR)
			return;
	}
}

static void at_call(struct run *r, pid_t tid)
{
	const struct call *c = change(tid);

	if (!c || ++r->n != r->kill_at)
		return;
	r->missed = c->name;
	if (r->one)
		kill(process_of(tid), SIGKILL);
	else
		kill_all(r);
}

static void ended(struct run *r, pid_t tid, int status)
{
	if (tid == r->program)
		r->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	for (size_t i = 0; i < r->n_known; i++)
		if (r->known[i] == tid)
			r->known[i] = r->known[--r->n_known];
}

static void began(struct run *r, pid_t tid)
{
	unsigned long child;

	if (ptrace(PTRACE_GETEVENTMSG, tid, 0, &child) == 0 && r->n_known < ARRAY_SIZE(r->known) &&
		process_of((pid_t)child) == (pid_t)child)
		r->known[r->n_known++] = (pid_t)child;
}

static void stopped(struct run *r, pid_t tid, int status)
{
	int event = status >> 16, sig = 0;

	if (event == PTRACE_EVENT_SECCOMP)
		at_call(r, tid);
	else if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE)
		began(r, tid);
	else if (event == 0 && WSTOPSIG(status) != SIGSTOP) /* with that one a new tracee begins */
		sig = WSTOPSIG(status);
	ptrace(PTRACE_CONT, tid, 0, sig);
}

static void go_on(struct run *r)
{
	for (;;) {
		int status;
		pid_t tid = waitpid(-1, &status, __WALL);

		if (tid < 0 && errno != EINTR)
			return;
		if (tid > 0 && WIFSTOPPED(status))
			stopped(r, tid, status);
		else if (tid > 0)
			ended(r, tid, status);
		if (told_to_end)
			kill_all(r);
	}
}

int main(int argc, char **argv)
{
	struct run r = {.status = -1, .n_known = 1};
	struct sigaction term = {.sa_handler = on_term}; /* no SA_RESTART: waiting must end */
	const char *result = NULL;
	int option, status;

	while ((option = getopt(argc, argv, "+k:1r:")) != -1) {
		if (option == 'k')
			r.kill_at = strtoull(optarg, NULL, 10);
		else if (option == '1')
			r.one = true;
		else if (option == 'r')
			result = optarg;
		else
			return 125;
	}
	if (optind == argc)
		return 125;
	r.program = start(argv + optind);
	r.known[0] = r.program;
	sigaction(SIGTERM, &term, NULL);
	if (waitpid(r.program, &status, 0) < 0 || !WIFSTOPPED(status))
		die("wait");
	if (ptrace(PTRACE_SETOPTIONS, r.program, 0, PTRACE_O_EXITKILL | PTRACE_O_TRACESECCOMP | PTRACE_O_TRACEFORK |
			PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC) < 0)
		die("ptrace");
	ptrace(PTRACE_CONT, r.program, 0, 0);
	go_on(&r);
	if (result) {
		FILE *f = fopen(result, "we");

		if (!f || fprintf(f, "%llu %s\n", (unsigned long long)r.n, r.missed ? r.missed : "-") < 0 || fclose(f) != 0)
			die(result);
	}
	return r.status >= 0 ? r.status : 137;
}
