/*
 * tests/fuzz/replay.c — a plain main for a fuzz target: runs it on each file named, so that the
 * corpus is part of the ordinary test run, with any compiler. Also on every beginning of it, for up
 * to 64 bytes: cut input is the commonest.
 */
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* A copy of exactly n bytes, so that a sanitizer sees the first byte too far. */
static int run(const uint8_t *data, size_t n)
{
	uint8_t *copy = malloc(n ? n : 1);

	if (!copy)
		return -1;
	memcpy(copy, data, n);
	LLVMFuzzerTestOneInput(copy, n);
	free(copy);
	return 0;
}

static int replay(const char *path)
{
	static uint8_t data[1 << 20];
	FILE *f = fopen(path, "rb");
	size_t n;

	if (!f) {
		perror(path);
		return -1;
	}
	n = fread(data, 1, sizeof(data), f);
	fclose(f);
	for (size_t i = 0; i < n && i < 64; i++)
		if (run(data, i) < 0)
			return -1;
	return run(data, n);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (replay(argv[i]) < 0)
			return 1;
	if (argc < 2) {
		fprintf(stderr, "%s: no corpus given\n", argv[0]);
		return 1;
	}
	printf("%d inputs\n", argc - 1);
	return 0;
}
