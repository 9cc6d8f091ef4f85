/* known_hosts as OpenSSH writes it: what matches a host, what is refused, and lines that nobody can understand. */
#include "syncd/known_hosts.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "tests/unit/where.h"

/* An SSH key as it goes over the wire: a string with the type, then bytes that stand for the key. */
struct wire {
	uint8_t bytes[128];
	size_t n;
	char base64[256];
};

static struct wire wire(const char *type, uint8_t fill, size_t n_key)
{
	struct wire w = {.bytes = {0, 0, 0, (uint8_t)strlen(type)}};

	memcpy(w.bytes + 4, type, strlen(type));
	memset(w.bytes + 4 + strlen(type), fill, n_key);
	w.n = 4 + strlen(type) + n_key;
	EVP_EncodeBlock((unsigned char *)w.base64, w.bytes, (int)w.n);
	return w;
}

static struct wire ed(uint8_t fill)
{
	return wire("ssh-ed25519", fill, 36);
}

static struct wire ecdsa(uint8_t fill)
{
	return wire("ecdsa-sha2-nistp256", fill, 50);
}

static struct known_hosts *read_bytes(const char *text, size_t n, const char *host, uint16_t port)
{
	struct known_hosts *k = NULL;
	char file[128];
	int fd;

	snprintf(file, sizeof(file), "%.80s/known.XXXXXX", where_disk());
	fd = mkstemp(file);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, n), n);
	close(fd);
	assert_int_equal(known_hosts_new(&k), 0);
	assert_int_equal(known_hosts_read(k, file, host, port), 0);
	unlink(file);
	return k;
}

static int check_once(const char *text, const char *host, uint16_t port, struct wire key)
{
	struct known_hosts *k = read_bytes(text, strlen(text), host, port);
	int r = known_hosts_check(k, key.bytes, key.n);

	known_hosts_free(k);
	return r;
}

/* The line of the hosts given, for the key. */
static int check_hosts(const char *hosts, const char *host, uint16_t port)
{
	char line[1024];

	snprintf(line, sizeof(line), "%s ssh-ed25519 %s a comment\n", hosts, ed(1).base64);
	return check_once(line, host, port, ed(1));
}

static void test_hosts(void **state)
{
	(void)state;
	assert_int_equal(check_hosts("host", "host", 22), 0);
	assert_int_equal(check_hosts("host", "HOST", 22), 0);
	assert_int_equal(check_hosts("Host", "host", 22), 0);
	assert_int_equal(check_hosts("host", "hos", 22), KNOWN_HOSTS_UNKNOWN);
	assert_int_equal(check_hosts("host", "hosts", 22), KNOWN_HOSTS_UNKNOWN);
	assert_int_equal(check_hosts("a,host,b", "host", 22), 0);
	assert_int_equal(check_hosts("a,host,b", "b", 22), 0);
	assert_int_equal(check_hosts("*.example.org", "x.example.org", 22), 0);
	assert_int_equal(check_hosts("*.example.org", "example.org", 22), KNOWN_HOSTS_UNKNOWN);
	assert_int_equal(check_hosts("h?st", "host", 22), 0);
	assert_int_equal(check_hosts("*.org,!bad.org", "bad.org", 22), KNOWN_HOSTS_UNKNOWN);
	assert_int_equal(check_hosts("!bad.org,*.org", "bad.org", 22), KNOWN_HOSTS_UNKNOWN);
	assert_int_equal(check_hosts("*.org,!bad.org", "good.org", 22), 0);
	assert_int_equal(check_hosts("!bad.org", "good.org", 22), KNOWN_HOSTS_UNKNOWN);
	assert_int_equal(check_hosts("fe80::1", "fe80::1", 22), 0);
	assert_int_equal(check_hosts("\t host", "host", 22), 0);
	assert_int_equal(check_hosts("# host", "host", 22), KNOWN_HOSTS_UNKNOWN);
}

static void test_ports(void **state)
{
	(void)state;
	assert_int_equal(check_hosts("[host]:2222", "host", 2222), 0);
	assert_int_equal(check_hosts("[host]:2222", "HOST", 2222), 0);
	assert_int_equal(check_hosts("[host]:2222", "host", 22), KNOWN_HOSTS_UNKNOWN);
	assert_int_equal(check_hosts("[host]:2222", "host", 2223), KNOWN_HOSTS_UNKNOWN);
	assert_int_equal(check_hosts("host", "host", 2222), KNOWN_HOSTS_UNKNOWN);
	assert_int_equal(check_hosts("[::1]:2222", "::1", 2222), 0);
}

/* |1|salt|HMAC-SHA1 */
static void hash_host(char *ret, size_t cap, const char *name)
{
	uint8_t salt[20] = {1, 2, 3, 4}, mac[EVP_MAX_MD_SIZE];
	char a[64], b[64];
	unsigned n;

	assert_non_null(HMAC(EVP_sha1(), salt, sizeof(salt), (const unsigned char *)name, strlen(name), mac, &n));
	EVP_EncodeBlock((unsigned char *)a, salt, sizeof(salt));
	EVP_EncodeBlock((unsigned char *)b, mac, (int)n);
	snprintf(ret, cap, "|1|%s|%s", a, b);
}

static void test_hashed(void **state)
{
	char hosts[256];

	(void)state;
	hash_host(hosts, sizeof(hosts), "host.example.org");
	assert_int_equal(check_hosts(hosts, "host.example.org", 22), 0);
	assert_int_equal(check_hosts(hosts, "Host.Example.Org", 22), 0);
	assert_int_equal(check_hosts(hosts, "other.example.org", 22), KNOWN_HOSTS_UNKNOWN);
	assert_int_equal(check_hosts(hosts, "host.example.org", 2222), KNOWN_HOSTS_UNKNOWN);
	hash_host(hosts, sizeof(hosts), "[host]:2222");
	assert_int_equal(check_hosts(hosts, "host", 2222), 0);
	/* what ssh-keygen -H made of "host.example.org": the format is OpenSSH's, not only ours */
	assert_int_equal(check_hosts("|1|EHyNG4SR312VbS9TwucZzEHEoIY=|kcCayLVwmBadSYdHa0qdBDqDA/U=", "host.example.org", 22), 0);
	assert_int_equal(check_hosts("|1|EHyNG4SR312VbS9TwucZzEHEoIY=|kcCayLVwmBadSYdHa0qdBDqDA/U=", "host.example.com", 22),
		KNOWN_HOSTS_UNKNOWN);
}

static void test_keys(void **state)
{
	char text[2048];

	(void)state;
	snprintf(text, sizeof(text), "host ssh-ed25519 %s\nhost ecdsa-sha2-nistp256 %s\n", ed(1).base64, ecdsa(2).base64);
	assert_int_equal(check_once(text, "host", 22, ed(1)), 0);
	assert_int_equal(check_once(text, "host", 22, ecdsa(2)), 0);
	assert_int_equal(check_once(text, "host", 22, ed(2)), KNOWN_HOSTS_MISMATCH);
	assert_int_equal(check_once(text, "host", 22, ecdsa(1)), KNOWN_HOSTS_MISMATCH);
	assert_int_equal(check_once(text, "host", 22, wire("ssh-rsa", 1, 100)), KNOWN_HOSTS_UNKNOWN);
	assert_int_equal(check_once(text, "other", 22, ed(1)), KNOWN_HOSTS_UNKNOWN);
	/* a prefix of the known key, and more than it */
	assert_int_equal(check_once(text, "host", 22, wire("ssh-ed25519", 1, 35)), KNOWN_HOSTS_MISMATCH);
	assert_int_equal(check_once(text, "host", 22, wire("ssh-ed25519", 1, 37)), KNOWN_HOSTS_MISMATCH);
	/* several of one type: any of them */
	snprintf(text, sizeof(text), "host ssh-ed25519 %s\nhost ssh-ed25519 %s\n", ed(1).base64, ed(2).base64);
	assert_int_equal(check_once(text, "host", 22, ed(1)), 0);
	assert_int_equal(check_once(text, "host", 22, ed(2)), 0);
	assert_int_equal(check_once(text, "host", 22, ed(3)), KNOWN_HOSTS_MISMATCH);
}

/* The word of the line says one type, the key itself another: nothing is known by it. */
static void test_type_lies(void **state)
{
	char text[1024];

	(void)state;
	snprintf(text, sizeof(text), "host ssh-rsa %s\n", ed(1).base64);
	assert_int_equal(check_once(text, "host", 22, ed(1)), KNOWN_HOSTS_UNKNOWN);
}

static void test_markers(void **state)
{
	char text[2048];

	(void)state;
	snprintf(text, sizeof(text), "@revoked * ssh-ed25519 %s\nhost ssh-ed25519 %s\n", ed(1).base64, ed(1).base64);
	assert_int_equal(check_once(text, "host", 22, ed(1)), KNOWN_HOSTS_REVOKED);
	assert_int_equal(check_once(text, "host", 22, ed(2)), KNOWN_HOSTS_MISMATCH);
	/* and when it is revoked after it was known */
	snprintf(text, sizeof(text), "host ssh-ed25519 %s\n@revoked  host\tssh-ed25519  %s\n", ed(1).base64, ed(1).base64);
	assert_int_equal(check_once(text, "host", 22, ed(1)), KNOWN_HOSTS_REVOKED);
	snprintf(text, sizeof(text), "@revoked host ssh-ed25519 %s\n", ed(1).base64);
	assert_int_equal(check_once(text, "host", 22, ed(2)), KNOWN_HOSTS_UNKNOWN);
	/* an authority's key is not a host's */
	snprintf(text, sizeof(text), "@cert-authority * ssh-ed25519 %s\n", ed(1).base64);
	assert_int_equal(check_once(text, "host", 22, ed(1)), KNOWN_HOSTS_UNKNOWN);
	snprintf(text, sizeof(text), "@unheard-of host ssh-ed25519 %s\n", ed(1).base64);
	assert_int_equal(check_once(text, "host", 22, ed(1)), KNOWN_HOSTS_UNKNOWN);
}

static void test_types(void **state)
{
	char text[4096];
	struct known_hosts *k;

	(void)state;
	snprintf(text, sizeof(text),
		"host ecdsa-sha2-nistp256 %s\nhost ssh-ed25519 %s\nhost ecdsa-sha2-nistp256 %s\n@revoked host ssh-rsa %s\nother ssh-dss %s\n",
		ecdsa(1).base64, ed(1).base64, ecdsa(2).base64, wire("ssh-rsa", 1, 20).base64, wire("ssh-dss", 1, 20).base64);
	k = read_bytes(text, strlen(text), "host", 22);
	assert_string_equal(known_hosts_type(k, 0), "ecdsa-sha2-nistp256");
	assert_string_equal(known_hosts_type(k, 1), "ssh-ed25519");
	assert_null(known_hosts_type(k, 2));
	assert_null(known_hosts_type(k, SIZE_MAX));
	known_hosts_free(k);
}

/* Lines that cannot be understood are passed over; the good line after them counts. */
static void test_damaged(void **state)
{
	static const char *const lines[] = {
		"", " ", "host", "host ", "host ssh-ed25519", "host ssh-ed25519 ", "host ssh-ed25519 !!!!", "host ssh-ed25519 AAA",
		"host ssh-ed25519 =", "host ssh-ed25519 ====", "host ssh-ed25519 A===", "host  ", "@revoked", "@revoked host", "@", "@ ",
		"|1|", "|1|| ssh-ed25519 AAAA", "|1|x|y ssh-ed25519 AAAA", "|1|AAAA ssh-ed25519 AAAA", ",,, ssh-ed25519 AAAA",
		"! ssh-ed25519 AAAA", "[ ssh-ed25519 AAAA", "\\ ssh-ed25519 AAAA", "\xff\xfe \x01 \x02", "\r", "host\r",
	};
	char text[1024];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		snprintf(text, sizeof(text), "%s\nhost ssh-ed25519 %s", lines[i], ed(1).base64);
		assert_int_equal(check_once(text, "host", 22, ed(1)), 0);
		assert_int_equal(check_once(lines[i], "host", 22, ed(1)), KNOWN_HOSTS_UNKNOWN);
	}
	snprintf(text, sizeof(text), "host ssh-ed25519 %s\r\n", ed(1).base64);
	assert_int_equal(check_once(text, "host", 22, ed(1)), 0);
	/* a type that is longer than any */
	memset(text, 't', 200);
	memcpy(text, "host ", 5);
	snprintf(text + 200, sizeof(text) - 200, " %s\nhost ssh-ed25519 %s\n", ed(2).base64, ed(1).base64);
	assert_int_equal(check_once(text, "host", 22, ed(1)), 0);
}

/* No piece of an endless line passes for a line. */
static void test_long_lines(void **state)
{
	size_t n_long = 16383, n = n_long + 512; /* the piece after 16,383 bytes begins with "host" */
	char *text = malloc(n);
	struct known_hosts *k;

	(void)state;
	assert_non_null(text);
	memset(text, 'x', n_long);
	snprintf(text + n_long, n - n_long, "host ssh-ed25519 %s\n", ed(1).base64);
	k = read_bytes(text, strlen(text), "host", 22);
	assert_null(known_hosts_type(k, 0));
	known_hosts_free(k);
	free(text);
}

static void test_many_keys(void **state)
{
	size_t cap = 1 << 20, n = 0;
	char *text = malloc(cap);
	struct known_hosts *k;

	(void)state;
	assert_non_null(text);
	for (int i = 0; i < 1000; i++)
		n += (size_t)snprintf(text + n, cap - n, "host ssh-ed25519 %s\n", ed((uint8_t)i).base64);
	k = read_bytes(text, n, "host", 22);
	assert_int_equal(known_hosts_check(k, ed(0).bytes, ed(0).n), 0);
	assert_string_equal(known_hosts_type(k, 0), "ssh-ed25519");
	assert_null(known_hosts_type(k, 1));
	known_hosts_free(k);
	free(text);
}

/* The key comes from the server: it may be anything. */
static void test_hostile_key(void **state)
{
	static const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 's', 's', 'h'}, over[] = {0, 0, 0, 4, 's', 's', 'h'}, empty[] = {0, 0, 0, 0};
	struct known_hosts *k;
	uint8_t type_too_long[200] = {0, 0, 0, 100};

	(void)state;
	k = read_bytes("", 0, "host", 22);
	assert_int_equal(known_hosts_check(k, "", 0), -EINVAL);
	assert_int_equal(known_hosts_check(k, huge, 3), -EINVAL);
	assert_int_equal(known_hosts_check(k, huge, sizeof(huge)), -EINVAL);
	assert_int_equal(known_hosts_check(k, over, sizeof(over)), -EINVAL);
	assert_int_equal(known_hosts_check(k, type_too_long, sizeof(type_too_long)), -EINVAL);
	assert_int_equal(known_hosts_check(k, empty, sizeof(empty)), KNOWN_HOSTS_UNKNOWN);
	known_hosts_free(k);
}

static void test_files(void **state)
{
	char text[512];
	struct known_hosts *k = NULL;

	(void)state;
	snprintf(text, sizeof(text), "host ssh-ed25519 %s\n", ed(1).base64);
	k = read_bytes(text, strlen(text), "host", 22);
	assert_int_equal(known_hosts_read(k, "/nowhere/at/all", "host", 22), -ENOENT);
	assert_int_equal(known_hosts_check(k, ed(1).bytes, ed(1).n), 0); /* what was read stays */
	known_hosts_free(k);
	known_hosts_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hosts), cmocka_unit_test(test_ports), cmocka_unit_test(test_hashed), cmocka_unit_test(test_keys),
		cmocka_unit_test(test_type_lies), cmocka_unit_test(test_markers), cmocka_unit_test(test_types),
		cmocka_unit_test(test_damaged), cmocka_unit_test(test_long_lines), cmocka_unit_test(test_many_keys),
		cmocka_unit_test(test_hostile_key), cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
