/* syncd.conf: what is accepted, and that every error is found and told with its line. */
#include "syncd/config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "tests/unit/where.h"

#define DAY_MS (INT64_C(86400) * 1000)

/* One configuration being tried: the file, and what was said of it, a line each. */
struct trial {
	char dir[64], file[128];
	char said[64 * 1024];
	size_t n_said;
	struct config *config;
};

static int setup(void **state)
{
	struct trial *t = calloc(1, sizeof(*t));

	if (!t)
		return -1;
	snprintf(t->dir, sizeof(t->dir), "%.40s/config.XXXXXX", where_disk());
	if (!mkdtemp(t->dir))
		return -1;
	snprintf(t->file, sizeof(t->file), "%s/c", t->dir);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct trial *t = *state;

	config_free(t->config);
	unlink(t->file);
	rmdir(t->dir);
	free(t);
	return 0;
}

static void hear(const char *line, void *data)
{
	struct trial *t = data;
	size_t n = strlen(t->said);

	assert_null(strchr(line, '\n'));
	/* file:line: is shown as line: */
	assert_memory_equal(line, t->file, strlen(t->file));
	snprintf(t->said + n, sizeof(t->said) - n, "%s\n", line + strlen(t->file) + 1);
	t->n_said++;
}

static int try_bytes(struct trial *t, const char *text, size_t n)
{
	FILE *f = fopen(t->file, "w");

	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, n, f), n);
	fclose(f);
	config_free(t->config);
	t->config = NULL;
	t->said[0] = 0;
	t->n_said = 0;
	return config_load(&t->config, t->file, hear, t);
}

static void good(struct trial *t, const char *text)
{
	int r = try_bytes(t, text, strlen(text));

	if (r != 0)
		print_error("%s", t->said);
	assert_int_equal(r, 0);
	assert_int_equal(t->n_said, 0);
}

/* Exactly one complaint, which contains `says`. */
static void bad(struct trial *t, const char *text, const char *says)
{
	assert_int_equal(try_bytes(t, text, strlen(text)), -EINVAL);
	assert_null(t->config);
	if (t->n_said != 1 || !strstr(t->said, says))
		print_error("expected: %s\nsaid: %s", says, t->said);
	assert_int_equal(t->n_said, 1);
	assert_non_null(strstr(t->said, says));
	assert_int_equal(config_load(&t->config, t->file, NULL, NULL), -EINVAL);
}

#define FOLDER "[folder f]\npath = /nowhere/f\n"
#define PEER FOLDER "[peer p]\nfolder = f\naddress = host:/x\n"

static void test_defaults(void **state)
{
	struct trial *t = *state;
	const struct config_folder *f;
	const struct config_peer *p;

	good(t, PEER);
	assert_string_equal(t->config->file, t->file);
	assert_null(t->config->socket);
	assert_int_equal(t->config->log_level, LOG_LEVEL_INFO);
	assert_int_equal(t->config->n_folders, 1);
	f = &t->config->folders[0];
	assert_string_equal(f->name, "f");
	assert_string_equal(f->path, "/nowhere/f");
	assert_null(f->state_dir);
	assert_int_equal(f->algorithm, 0);
	assert_int_equal(f->settle_ms, 500);
	assert_int_equal(f->interval_ms, 300 * 1000);
	assert_int_equal(f->rescan_interval_ms, 3600 * 1000);
	assert_int_equal(f->grace_ms, 10 * DAY_MS);
	assert_int_equal(f->member_expiry_ms, 90 * DAY_MS);
	assert_int_equal(f->trash_keep_ms, 30 * DAY_MS);
	assert_int_equal(f->trash_max_bytes, 0);
	assert_int_equal(f->conflict, DECIDE_KEEP_BOTH);
	assert_int_equal(f->n_prefer, 0);
	assert_int_equal(f->n_serve_users, 0);
	assert_int_equal(f->owner, geteuid() == 0);
	assert_int_equal(f->line, 1);
	assert_int_equal(t->config->n_peers, 1);
	p = &t->config->peers[0];
	assert_string_equal(p->name, "p");
	assert_string_equal(p->folder, "f");
	assert_string_equal(p->address, "host:/x");
	assert_int_equal(p->mode, CONFIG_TWO_WAY);
	assert_false(p->transport_ssh);
	assert_null(p->identity);
	assert_null(p->known_hosts);
	assert_null(p->syncctl_path);
	assert_int_equal(p->connect_timeout_ms, 20000);
	assert_int_equal(p->line, 3);
}

static void test_every_key(void **state)
{
	struct trial *t = *state;
	const struct config_folder *f;
	const struct config_peer *p;

	good(t, "\xef\xbb\xbf# a comment after a byte order mark\r\n"
		"[daemon]\r\nsocket = /run//x.sock\nlog_level=debug\nlimit_up = 2 MB/s\nlimit_down = 10Mbit/s\nmax_sessions = 5\n"
		"scan_cpu = 25%\nscan_io = 20 MiB/s\n\n"
		"  [ folder  My.docs_1-a ] ; a comment\n"
		"\tpath = /nowhere/a b=c:d/ ; a comment\n"
		"state_dir = /nowhere/state\nhash = blake2b\nsettle = 0\ninterval: 100ms\nrescan_interval = 0\n"
		"conflict = prefer\nprefer = 0123456789abcdef,  FEDCBA9876543210\ntombstone_grace = 2 d\nmember_expiry = 0\n"
		"trash_keep = 12 h\ntrash_max = 20 G\nserve_users = alice 1001\towner-x, bob\nowner = no\nlimit_up = 1024 K/s\n"
		"[folder two]\npath = /nowhere/two\nhash = xxh3\nconflict = newest\nowner = yes\n"
		"[peer x]\nfolder = My.docs_1-a\naddress = ssh://u@h:2222/~/docs\nmode = pull\nrevert = yes\ntransport = ssh\n"
		"identity = /k#1\nknown_hosts = /kh\nsyncctl_path = /opt/bin/syncctl\nconnect_timeout = 3 s\nlimit_down = 64 KiB\n"
		"[peer y]\nmode = push\naddress = /nowhere/b\nfolder = two\ntransport = syncd-ssh");
	assert_string_equal(t->config->socket, "/run/x.sock");
	assert_int_equal(t->config->log_level, LOG_LEVEL_DEBUG);
	assert_int_equal(t->config->n_folders, 2);
	f = config_find_folder(t->config, "My.docs_1-a");
	assert_ptr_equal(f, &t->config->folders[0]);
	assert_null(config_find_folder(t->config, "my.docs_1-a"));
	assert_string_equal(f->path, "/nowhere/a b=c:d");
	assert_string_equal(f->state_dir, "/nowhere/state");
	assert_int_equal(f->algorithm, HASH_BLAKE2B);
	assert_int_equal(f->settle_ms, 0);
	assert_int_equal(f->interval_ms, 100);
	assert_int_equal(f->rescan_interval_ms, 0);
	assert_int_equal(f->conflict, DECIDE_PREFER);
	assert_int_equal(f->n_prefer, 2);
	assert_string_equal(f->prefer[0], "0123456789abcdef");
	assert_string_equal(f->prefer[1], "FEDCBA9876543210");
	assert_int_equal(f->grace_ms, 2 * DAY_MS);
	assert_int_equal(f->member_expiry_ms, 0);
	assert_int_equal(f->trash_keep_ms, DAY_MS / 2);
	assert_int_equal(f->trash_max_bytes, UINT64_C(20) << 30);
	assert_int_equal(f->n_serve_users, 4);
	assert_string_equal(f->serve_users[2], "owner-x");
	assert_string_equal(f->serve_users[3], "bob");
	assert_false(f->owner);
	assert_int_equal(f->line, 11);
	assert_int_equal(t->config->max_sessions, 5);
	assert_int_equal(t->config->scan_cpu_percent, 25);
	assert_int_equal(t->config->scan_io, 20 << 20);
	assert_int_equal(t->config->limits.up, 2000000);
	assert_int_equal(t->config->limits.down, 1250000);
	assert_int_equal(f->limits.up, 1 << 20);
	assert_int_equal(f->limits.down, 0);
	assert_int_equal(t->config->folders[1].algorithm, HASH_XXH3);
	assert_int_equal(t->config->folders[1].conflict, DECIDE_NEWEST);
	assert_true(t->config->folders[1].owner);
	p = &t->config->peers[0];
	assert_string_equal(p->folder, "My.docs_1-a");
	assert_string_equal(p->address, "ssh://u@h:2222/~/docs");
	assert_int_equal(p->mode, CONFIG_PULL);
	assert_true(p->revert);
	assert_true(p->transport_ssh);
	assert_string_equal(p->identity, "/k#1");
	assert_string_equal(p->known_hosts, "/kh");
	assert_string_equal(p->syncctl_path, "/opt/bin/syncctl");
	assert_int_equal(p->connect_timeout_ms, 3000);
	assert_int_equal(p->limits.up, 0);
	assert_int_equal(p->limits.down, 65536);
	assert_int_equal(t->config->peers[1].mode, CONFIG_PUSH);
	assert_false(t->config->peers[1].transport_ssh);
}

static void test_empty(void **state)
{
	struct trial *t = *state;

	good(t, "");
	assert_int_equal(t->config->n_folders + t->config->n_peers, 0);
	good(t, "\n\n# only\n; comments\n[daemon]");
}

static void test_files(void **state)
{
	struct trial *t = *state;

	assert_int_equal(config_load(&t->config, "/nowhere/at/all", hear, t), -ENOENT);
	assert_int_equal(config_load(&t->config, t->dir, hear, t), -EISDIR);
	assert_int_equal(t->n_said, 0);
	assert_null(t->config);
}

/* inih's line has 200 bytes; ours do not care. */
static void test_long_values(void **state)
{
	struct trial *t = *state;
	char text[3 * 4200], path[4200];

	for (size_t n = 150; n <= 4095; n += n < 260 ? 1 : 97) {
		memset(path, 'p', n);
		path[0] = '/';
		path[n / 2] = ' ';
		path[n] = 0;
		snprintf(text, sizeof(text), "[folder f]\n  path = %s  ; comment\nhash = xxh3\n", path);
		good(t, text);
		assert_string_equal(t->config->folders[0].path, path);
		assert_int_equal(t->config->folders[0].algorithm, HASH_XXH3);
	}
	memset(path, 'p', 4096);
	path[0] = '/';
	path[4096] = 0;
	snprintf(text, sizeof(text), "[folder f]\npath = %s\n", path);
	bad(t, text, "2: path");
	snprintf(text, sizeof(text), FOLDER "# %s\n%s = 1\n", path, path);
	bad(t, text, "4: this line is neither");
	snprintf(text, sizeof(text), FOLDER "[folder %s]\npath = /nowhere/g\n", path);
	bad(t, text, "3: this is no name for a folder");
}

static void test_home(void **state)
{
	struct trial *t = *state;

	setenv("HOME", "/nowhere/home", 1);
	good(t, "[folder f]\npath = ~/docs//a/\n[peer p]\nfolder = f\naddress = ~/x\nidentity = ~/.ssh/k\n");
	assert_string_equal(t->config->folders[0].path, "/nowhere/home/docs/a");
	assert_string_equal(t->config->peers[0].identity, "/nowhere/home/.ssh/k");
	bad(t, "[folder f]\npath = ~root/docs\n", "2: path = '~root/docs': it is not an absolute path");
	setenv("HOME", "relative", 1);
	bad(t, "[folder f]\npath = ~/docs\n", "no home directory");
}

static void test_lines(void **state)
{
	struct trial *t = *state;

	bad(t, FOLDER "bogus\n", "3: this line is neither");
	bad(t, FOLDER "= /x\n", "3: there is no key ''");
	bad(t, "path = /x\n", "1: 'path' comes before any section");
	bad(t, FOLDER "[peer\n", "3: the section's line does not end with ]");
	bad(t, FOLDER "[peer x] address = h:/x\n", "3: the section's line does not end with ]");
	bad(t, FOLDER "path_ = x ; a comment\n", "3: there is no key 'path_': did you mean path?");
	bad(t, FOLDER "serve_users = a\001b\n", "3: serve_users = 'a\\x01b': there are control characters");
	assert_int_equal(try_bytes(t, "[daemon]\nsocket = /a\0b\n", 23), -EINVAL);
	assert_non_null(strstr(t->said, "2: there is a zero byte"));
}

static void test_sections(void **state)
{
	struct trial *t = *state;

	bad(t, "[foldr f]\npath = /x\nnonsense = too\n", "1: there is no section 'foldr': did you mean [folder NAME]?");
	bad(t, "[Daemon]\n", "did you mean [daemon]?");
	bad(t, "[global]\n", "there are [daemon], [folder NAME] and [peer NAME]");
	bad(t, "[]\n", "there is no section ''");
	bad(t, "[folder]\npath = /x\n", "1: the folder has no name");
	bad(t, FOLDER "[peer  ]\nfolder = f\naddress = h:/x", "3: the peer has no name");
	bad(t, "[folder a/b]\npath = /x\n", "no name for a folder");
	bad(t, "[folder ..]\npath = /x\n", "no name for a folder");
	bad(t, "[folder a b]\npath = /x\n", "no name for a folder");
	bad(t, "[folder \x1b]\npath = /x\n", "no name for a folder");
	assert_int_equal(try_bytes(t, "[folder \x1b[1m]\n", 13), -EINVAL); /* and nothing of it on the terminal */
	assert_null(strchr(t->said, 0x1b));
	bad(t, "[folder -a]\npath = /x\n", "no name for a folder");
	bad(t, "[daemon x]\n", "[daemon] has no name");
	bad(t, "[daemon]\n[folder f]\npath = /x\n[daemon]\nsocket = /x\n", "4: a second [daemon]: move its lines to the one in line 1");
}

static void test_keys(void **state)
{
	struct trial *t = *state;

	bad(t, FOLDER "intervall = 1 h\n", "3: there is no key 'intervall': did you mean interval?");
	bad(t, FOLDER "Path = 1 h\n", "did you mean path?");
	bad(t, FOLDER "max_size = 1\n", "there is no key 'max_size' in [folder NAME]: see syncd.conf(5)");
	bad(t, FOLDER "address = h:/x\n", "3: address belongs in [peer NAME]");
	bad(t, "[daemon]\ninterval = 1 h\n", "2: interval belongs in [folder NAME]");
	bad(t, PEER "socket = /x\n", "6: socket belongs in [daemon]");
	bad(t, FOLDER "hash = sha256\nhash = sha256\n", "4: a second hash, the first is in line 3");
	bad(t, FOLDER "hash =\n", "3: hash has no value");
	bad(t, FOLDER "hash = ; nothing\n", "3: hash has no value");
	bad(t, "[folder f]\n", "1: the folder 'f' has no path");
	bad(t, FOLDER "[peer p]\nfolder = f\n", "3: the peer 'p' has no address");
	bad(t, FOLDER "[peer p]\naddress = h:/x\n", "3: the peer 'p' has no folder");
	/* one item's keys are not another's */
	good(t, FOLDER "hash = xxh3\n[folder g]\npath = /nowhere/g\nhash = xxh3\n");
}

static void test_values(void **state)
{
	struct trial *t = *state;
	char text[512];

	bad(t, "[folder f]\npath = docs\n", "2: path = 'docs': it is not an absolute path");
	bad(t, "[folder f]\npath = \"/docs\"\n", "without quotation marks");
	bad(t, FOLDER "hash = md5\n", "3: hash = 'md5': it must be sha256, blake2b or xxh3");
	bad(t, FOLDER "conflict = merge\n", "it must be keep-both, newest or prefer");
	bad(t, FOLDER "owner = true\n", "it must be yes or no");
	bad(t, PEER "revert = maybe\n", "6: revert = 'maybe': it must be yes or no");
	bad(t, PEER "revert = yes\n", "3: the peer 'p' has revert = yes, which goes with mode = pull only");
	bad(t, PEER "mode = pull\nrevert = yes\n[peer q]\nfolder = f\naddress = h:x\n",
		"3: the peer 'p' has revert = yes, but the peer 'q' (line 8) of the same folder is two-way");
	bad(t, PEER "mode = both\n", "6: mode = 'both': it must be two-way, push or pull");
	bad(t, PEER "transport = tcp\n", "it must be syncd-ssh or ssh");
	bad(t, "[daemon]\nlog_level = loud\n", "it must be error, warning, info or debug");
	bad(t, FOLDER "settle = 5\n", "3: settle = '5': it is not a duration");
	bad(t, FOLDER "settle = 61 min\n", "it is too long: 1 h at most");
	bad(t, FOLDER "interval = 99 ms\n", "it is too short");
	bad(t, FOLDER "interval = 0\n", "it is too short");
	bad(t, FOLDER "trash_keep = 36501 d\n", "it is too long: 36500 d at most");
	bad(t, FOLDER "trash_keep = 99999999999999999999 d\n", "it is too long");
	bad(t, FOLDER "trash_max = 20 GB\n", "it is not a size");
	bad(t, FOLDER "trash_max = 99999999 T\n", "it is too large");
	bad(t, "[daemon]\nlimit_up = 500\n", "2: limit_up = '500': it is not a rate: write a number with a unit");
	bad(t, "[daemon]\nscan_cpu = 25\n", "2: scan_cpu = '25': it is not a share of a processor: write a number with %");
	bad(t, "[daemon]\nscan_cpu = 25%%\n", "it is not a share of a processor");
	bad(t, "[daemon]\nscan_cpu = 100001 %\n", "it is too much: 100000 % at most");
	good(t, "[daemon]\nscan_cpu = off\nscan_io = 0\n");
	bad(t, "[daemon]\nmax_sessions = 5 K\n", "2: max_sessions = '5 K': it is not a number up to 1000000");
	bad(t, "[daemon]\nmax_sessions = 1000001\n", "it is not a number up to 1000000");
	bad(t, "[daemon]\nmax_sessions = many\n", "it is not a number");
	good(t, "[daemon]\nmax_sessions = off\n");
	bad(t, FOLDER "limit_down = fast\n", "3: limit_down = 'fast': it is not a rate");
	bad(t, PEER "limit_up = 1023 B/s\n", "6: limit_up = '1023 B/s': it is out of range: 1 KiB/s at least");
	bad(t, PEER "limit_up = 20 TB\n", "it is not a rate");
	bad(t, PEER "limit_up = -1 M\n", "it is not a rate");
	bad(t, FOLDER "serve_users = , ,\n", "the list is empty");
	bad(t, FOLDER "conflict = prefer\n", "does not say whom: add prefer");
	bad(t, FOLDER "prefer = 0123456789abcdef\n", "means nothing without conflict = prefer");
	memset(text, 'x', sizeof(text));
	memcpy(text, "[daemon]\nsocket = /", 19);
	text[19 + 107] = 0;
	bad(t, text, "107 bytes at most");
	text[19 + 106] = 0;
	good(t, text);
}

static void test_ids(void **state)
{
	struct trial *t = *state;

	/* conflict = prefer stands too, so that the bad value is the only error */
	assert_int_equal(try_bytes(t, FOLDER "conflict = prefer\nprefer = laptop\n", strlen(FOLDER) + 34), -EINVAL);
	assert_non_null(strstr(t->said, "4: prefer = 'laptop': a member is named by its replica id"));
	assert_int_equal(try_bytes(t, FOLDER "conflict = prefer\nprefer = 0123456789abcde\n", strlen(FOLDER) + 43), -EINVAL);
}

static void test_addresses(void **state)
{
	struct trial *t = *state;

	bad(t, FOLDER "[peer p]\nfolder = f\naddress = -oProxyCommand=x:/y\n", "3: the address of the peer 'p', '-oProxyCommand=x:/y', is wrong");
	bad(t, FOLDER "[peer p]\nfolder = f\naddress = ssh://host\n", "needs a path");
	bad(t, FOLDER "[peer p]\nfolder = f\naddress = ssh://host:0/x\n", "the port is not a number");
	bad(t, FOLDER "[peer p]\nfolder = f\naddress = docs\n", "is a relative path");
	bad(t, FOLDER "[peer p]\nfolder = f\naddress = /nowhere/f\n", "the same directory");
	bad(t, FOLDER "[peer p]\nfolder = f\naddress = /nowhere/f/g\n", "the same directory");
	bad(t, FOLDER "[peer p]\nfolder = f\naddress = /nowhere\n", "the same directory");
	good(t, FOLDER "[peer p]\nfolder = f\naddress = /nowhere/ff\n");
	good(t, FOLDER "[peer p]\nfolder = f\naddress = host:docs\n");
	good(t, FOLDER "[peer p]\nfolder = f\naddress = u@[fe80::1]:/x\n");
}

static void test_names(void **state)
{
	struct trial *t = *state;

	bad(t, FOLDER "[folder f]\npath = /nowhere/g\n", "3: a second folder 'f', the first is in line 1");
	bad(t, PEER "[peer p]\nfolder = f\naddress = h:/y\n", "6: a second peer 'p', the first is in line 3");
	good(t, FOLDER "[peer f]\nfolder = f\naddress = h:/y\n");
	bad(t, "[folder docs]\npath = /nowhere/f\n[peer p]\nfolder = dosc\naddress = h:/x\n",
		"3: the peer 'p' is for a folder 'dosc', which is not there: did you mean 'docs'?");
	bad(t, FOLDER "[peer p]\nfolder = g\naddress = h:/x\n", "add [folder");
	/* the order does not matter */
	good(t, "[peer p]\nfolder = f\naddress = h:/x\n" FOLDER);
}

static void test_overlap(void **state)
{
	struct trial *t = *state;
	char text[1024], real[160], link[160];

	bad(t, FOLDER "[folder g]\npath = /nowhere/f/sub\n", "3: the folders 'f' ('/nowhere/f', line 1) and 'g' ('/nowhere/f/sub') lie one");
	bad(t, FOLDER "[folder g]\npath = /nowhere\n", "lie one inside the other");
	bad(t, FOLDER "[folder g]\npath = /\n", "lie one inside the other");
	bad(t, FOLDER "[folder g]\npath = //nowhere//f/\n", "are the same directory");
	good(t, FOLDER "[folder g]\npath = /nowhere/f2\n");
	bad(t, FOLDER "state_dir = /nowhere/f/state\n", "1: the state_dir of the folder 'f', '/nowhere/f/state', lies inside the folder 'f'");
	bad(t, FOLDER "state_dir = /nowhere/g/s\n[folder g]\npath = /nowhere/g\n", "lies inside the folder 'g'");
	bad(t, FOLDER "state_dir = /s\n[folder g]\npath = /nowhere/g\nstate_dir = /s/\n", "have the same state_dir");
	/* through a symlink too */
	snprintf(real, sizeof(real), "%s/real", t->dir);
	snprintf(link, sizeof(link), "%s/link", t->dir);
	assert_int_equal(mkdir(real, 0700), 0);
	assert_int_equal(symlink("real", link), 0);
	snprintf(text, sizeof(text), "[folder a]\npath = %s\n[folder b]\npath = %s\n", real, link);
	bad(t, text, "are the same directory");
	unlink(link);
	rmdir(real);
}

/* Not only the first. */
static void test_all_errors(void **state)
{
	struct trial *t = *state;
	const char *text = "[folder f]\npth = /x\nbogus\nhash = no\nhash = no\n[peer p]\nfolder = g\naddress = :x\nmode = x\n[x]\ny=z\nbogus\n";

	assert_int_equal(try_bytes(t, text, strlen(text)), -EINVAL);
	assert_non_null(strstr(t->said, "1: the folder 'f' has no path"));
	assert_non_null(strstr(t->said, "2: there is no key 'pth': did you mean path?"));
	assert_non_null(strstr(t->said, "3: this line is neither"));
	assert_non_null(strstr(t->said, "4: hash = 'no'"));
	assert_non_null(strstr(t->said, "5: a second hash"));
	assert_non_null(strstr(t->said, "6: the peer 'p' is for a folder 'g'"));
	assert_non_null(strstr(t->said, "6: the address of the peer 'p', ':x', is wrong"));
	assert_non_null(strstr(t->said, "9: mode = 'x'"));
	assert_non_null(strstr(t->said, "10: there is no section 'x'"));
	assert_non_null(strstr(t->said, "12: this line is neither"));
	assert_int_equal(t->n_said, 10);
}

static void test_durations(void **state)
{
	static const struct {
		const char *text;
		int r;
		int64_t ms;
	} cases[] = {
		{"0", 0, 0}, {"1ms", 0, 1}, {"500 ms", 0, 500}, {"2s", 0, 2000}, {"3 min", 0, 180000}, {"1 h", 0, 3600000},
		{"10d", 0, 10 * DAY_MS}, {"0 d", 0, 0}, {"007 s", 0, 7000}, {"106751991167 d", 0, INT64_C(106751991167) * DAY_MS},
		{"", -EINVAL, 0}, {"1", -EINVAL, 0}, {"s", -EINVAL, 0}, {"-1 s", -EINVAL, 0}, {"+1 s", -EINVAL, 0}, {"1.5 h", -EINVAL, 0},
		{"1 m", -EINVAL, 0}, {"1 S", -EINVAL, 0}, {"1 s ", -EINVAL, 0}, {" 1 s", -EINVAL, 0}, {"1 s 2 ms", -EINVAL, 0},
		{"0x10 s", -EINVAL, 0}, {"106751991168 d", -ERANGE, 0}, {"9223372036854775808 ms", -ERANGE, 0},
		{"99999999999999999999999", -ERANGE, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int64_t ms = -77;

		assert_int_equal(config_parse_duration(cases[i].text, &ms), cases[i].r);
		assert_int_equal(ms, cases[i].r == 0 ? cases[i].ms : -77);
	}
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t bytes;
	} cases[] = {
		{"0", 0, 0}, {"123", 0, 123}, {"4K", 0, 4096}, {"1 M", 0, 1 << 20}, {"2G", 0, UINT64_C(2) << 30}, {"3 T", 0, UINT64_C(3) << 40},
		{"18446744073709551615", 0, UINT64_MAX}, {"16777215T", 0, UINT64_C(16777215) << 40}, {"", -EINVAL, 0}, {"K", -EINVAL, 0},
		{"-1", -EINVAL, 0}, {"1k", -EINVAL, 0}, {"1KB", -EINVAL, 0}, {"1 K ", -EINVAL, 0}, {"1.5G", -EINVAL, 0},
		{"18446744073709551616", -ERANGE, 0}, {"16777216T", -ERANGE, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bytes = 77;

		assert_int_equal(config_parse_size(cases[i].text, &bytes), cases[i].r);
		assert_int_equal(bytes, cases[i].r == 0 ? cases[i].bytes : 77);
	}
}

/* What the example says is the default is the default: with every comment that is a key uncommented it is accepted, and means
 * the same but for what has no fixed default. Tests run in the project's root. */
static void test_example(void **state)
{
	struct trial *t = *state;
	char line[512], text[16384] = "";
	FILE *f = fopen("syncd.conf.example", "r");
	const struct config_folder *folder;
	size_t n = 0, keys = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		bool commented = line[0] == '#' && line[1] >= 'a' && line[1] <= 'z';

		/* prefer needs another policy than the default */
		if (strncmp(line, "#prefer", 7) == 0)
			continue;
		keys += commented || (line[0] >= 'a' && line[0] <= 'z');
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s", line + commented);
		assert_true(n < sizeof(text));
	}
	fclose(f);
	good(t, text);
	assert_int_equal(keys, 33); /* all there are, but for prefer */
	folder = &t->config->folders[0];
	assert_int_equal(t->config->log_level, LOG_LEVEL_INFO);
	assert_int_equal(t->config->limits.up + t->config->limits.down, 0);
	assert_int_equal(folder->limits.up + folder->limits.down, 0);
	assert_int_equal(folder->algorithm, HASH_SHA256);
	assert_int_equal(folder->settle_ms, 500);
	assert_int_equal(folder->interval_ms, 300 * 1000);
	assert_int_equal(folder->rescan_interval_ms, 3600 * 1000);
	assert_int_equal(folder->conflict, DECIDE_KEEP_BOTH);
	assert_int_equal(folder->grace_ms, 10 * DAY_MS);
	assert_int_equal(folder->member_expiry_ms, 90 * DAY_MS);
	assert_int_equal(folder->trash_keep_ms, 30 * DAY_MS);
	assert_int_equal(folder->trash_max_bytes, 0);
	assert_int_equal(t->config->peers[0].mode, CONFIG_TWO_WAY);
	assert_false(t->config->peers[0].revert);
	assert_false(t->config->peers[0].transport_ssh);
	assert_int_equal(t->config->peers[0].connect_timeout_ms, 20000);
	config_free(t->config);
	assert_int_equal(config_load(&t->config, "syncd.conf.example", NULL, NULL), 0); /* as it is, too */
}

static void test_rates(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t rate;
	} cases[] = {
		{"0", 0, 0}, {"off", 0, 0}, {"0 K", 0, 0}, {"1K", 0, 1024}, {"1 KiB/s", 0, 1024}, {"2KB", 0, 2000}, {"2 kB/s", 0, 2000},
		{"3M/s", 0, 3 << 20}, {"3 MiB", 0, 3 << 20}, {"3MB/s", 0, 3000000}, {"10 Mbit/s", 0, 1250000}, {"64kbit/s", 0, 8000},
		{"1G", 0, 1 << 30}, {"1GiB/s", 0, 1 << 30}, {"1GB", 0, 1000000000}, {"1Gbit/s", 0, 125000000}, {"1024 B/s", 0, 1024},
		{"1023B", -ERANGE, 0}, {"1 kbit/s", -ERANGE, 0}, {"1024 GiB/s", 0, CONFIG_RATE_MAX}, {"1025 GiB/s", -ERANGE, 0},
		{"99999999999999999999 K", -ERANGE, 0}, {"9999999999999999999 G", -ERANGE, 0}, {"1", -EINVAL, 0}, {"", -EINVAL, 0},
		{"K", -EINVAL, 0}, {"1 mbit/s", -EINVAL, 0}, {"1 K/", -EINVAL, 0}, {"1 /s", -EINVAL, 0}, {"1 K/s/s", -EINVAL, 0},
		{"1.5 M", -EINVAL, 0}, {"offf", -EINVAL, 0}, {"-1 K", -EINVAL, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t rate = 12345;
		int r = config_parse_rate(cases[i].text, &rate);

		if (r != cases[i].r || rate != (r ? 12345 : cases[i].rate))
			print_error("%s: %d, %llu\n", cases[i].text, r, (unsigned long long)rate);
		assert_int_equal(r, cases[i].r);
		assert_int_equal(rate, r ? 12345 : cases[i].rate);
	}
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_defaults), CASE(test_every_key), CASE(test_empty), CASE(test_files), CASE(test_long_values), CASE(test_home),
		CASE(test_lines), CASE(test_sections), CASE(test_keys), CASE(test_values), CASE(test_ids), CASE(test_addresses),
		CASE(test_names), CASE(test_overlap), CASE(test_all_errors), CASE(test_example),
		cmocka_unit_test(test_durations), cmocka_unit_test(test_sizes), cmocka_unit_test(test_rates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
