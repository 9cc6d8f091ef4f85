/*
 * tests/fuzz/fuzz_ignore.c — a hostile .syncignore.
 *
 * Input: the rules, to the first NUL; then a path that is looked up, as a file and as a directory. What a rule says of a path must
 * not depend on what else was asked, and a directory that is ignored takes all below it along.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "merkle/ignore.h"
#include "merkle/path.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void look_up(const struct ignore *i, char *path)
{
	bool file = ignore_match(i, path, false), directory = ignore_match(i, path, true);

	if (file != ignore_match(i, path, false) || directory != ignore_match(i, path, true))
		abort();
	for (char *slash = strrchr(path, '/'); slash; slash = strrchr(path, '/')) {
		*slash = '\0';
		if (ignore_match(i, path, true) && (!file || !directory))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const char *const paths[] = {"a", "a/b", "a/b/c.o", ".x", "a b/[c]", "build/out/x.o"};
	const uint8_t *end = n ? memchr(data, 0, n) : NULL;
	size_t rules = end ? (size_t)(end - data) : n, bad = 0;
	char path[4096] = "";
	struct ignore *i;
	uint64_t digest;
	int r;

	if (ignore_new(&i) < 0)
		abort();
	r = ignore_set(i, "", (const char *)data, rules, &bad);
	if (r < 0 && r != -EFBIG)
		abort();
	digest = ignore_digest(i);
	if (end && n - rules - 1 < sizeof(path))
		memcpy(path, end + 1, n - rules - 1);
	if (*path && path_valid(path))
		look_up(i, path);
	for (size_t k = 0; k < sizeof(paths) / sizeof(*paths); k++) {
		strcpy(path, paths[k]);
		look_up(i, path);
	}
	if (r == 0 && (ignore_set(i, "", (const char *)data, rules, NULL) < 0 || ignore_digest(i) != digest))
		abort();
	if (ignore_set(i, "", NULL, 0, NULL) < 0 || ignore_digest(i) || ignore_match(i, "a", false))
		abort();
	ignore_free(i);
	return 0;
}
