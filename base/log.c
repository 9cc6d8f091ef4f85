/* base/log.c — see base/log.h. The sink is the only mutable global of the project. */
#include "base/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const char *log_name = "syncd";

static void log_to_stderr(enum log_level level, const char *line, void *data)
{
	static const char *const words[] = {"error: ", "warning: ", "", "debug: "};

	(void)data;
	fprintf(stderr, "%s: %s%s\n", log_name, words[level], line);
}

static struct {
	log_sink *sink;
	void *data;
	enum log_level level;
} log_state = {.sink = log_to_stderr, .level = LOG_LEVEL_INFO};

void log_set_sink(log_sink *sink, void *data)
{
	log_state.sink = sink ? sink : log_to_stderr;
	log_state.data = data;
}

void log_set_level(enum log_level level)
{
	log_state.level = level;
}

void log_set_name(const char *program)
{
	log_name = program;
}

bool log_wants(enum log_level level)
{
	return level <= log_state.level;
}

void log_message(enum log_level level, const char *fmt, ...)
{
	char line[2048];
	va_list args;

	if (!log_wants(level))
		return;
	va_start(args, fmt);
	vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	log_state.sink(level, line, log_state.data);
}

/* Length of the valid UTF-8 sequence at p (no overlong forms, surrogates or control codes), else 0. */
static size_t utf8_length(const uint8_t *p)
{
	uint32_t code;
	size_t n;

	if (p[0] >= 0x20 && p[0] < 0x7f)
		return 1;
	if (p[0] >= 0xc2 && p[0] <= 0xdf) {
		n = 2;
		code = p[0] & 0x1f;
	} else if ((p[0] & 0xf0) == 0xe0) {
		n = 3;
		code = p[0] & 0x0f;
	} else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
		n = 4;
		code = p[0] & 0x07;
	} else {
		return 0;
	}
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (p[i] & 0x3f);
	}
	if (code < 0xa0 || (n == 3 && code < 0x800) || (n == 4 && code < 0x10000) ||
			code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ||
			(code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069))
		return 0;
	return n;
}

char *text_quote(char *ret, size_t cap, const char *bytes)
{
	const uint8_t *p = (const uint8_t *)bytes;
	size_t at = 0;

	if (cap < 8) {
		if (cap)
			ret[0] = 0;
		return ret;
	}
	ret[at++] = '\'';
	while (*p) {
		size_t n = *p == '\'' || *p == '\\' ? 0 : utf8_length(p);

		if (at + (n ? n : 4) + 5 > cap) { /* room for the ellipsis, the quote and the NUL */
			memcpy(ret + at, "\xe2\x80\xa6", 3);
			at += 3;
			break;
		}
		if (n) {
			memcpy(ret + at, p, n);
			at += n;
			p += n;
		} else {
			at += (size_t)snprintf(ret + at, 5, "\\x%02x", *p++);
		}
	}
	ret[at++] = '\'';
	ret[at] = 0;
	return ret;
}

const char *quoted(const char *bytes)
{
	static _Thread_local char ring[4][1024];
	static _Thread_local unsigned next;

	return text_quote(ring[next++ % 4], sizeof(ring[0]), bytes);
}
