/*
 * base/log.h — one sink for messages. Layers below syncd/ use log_debug() only; the edge logs once,
 * with folder, peer, path and cause. Text: lower case, no full stop; quote names with text_quote().
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>

enum log_level {
	LOG_LEVEL_ERROR,   /* something is not done, and a person should know */
	LOG_LEVEL_WARNING, /* goes on, less well */
	LOG_LEVEL_INFO,	   /* what happened */
	LOG_LEVEL_DEBUG,
};

/* The sink gets one line without newline. The default writes "<program>: <line>" to stderr. */
typedef void log_sink(enum log_level level, const char *line, void *data);

void log_set_sink(log_sink *sink, void *data);
void log_set_level(enum log_level level); /* messages above it are dropped; default INFO */
bool log_wants(enum log_level level);
void log_set_name(const char *program);	  /* kept by reference */

__attribute__((format(printf, 2, 3))) void log_message(enum log_level level, const char *fmt, ...);

#define log_error(...) log_message(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_message(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_message(LOG_LEVEL_INFO, __VA_ARGS__)
/* Its arguments are worked out only where somebody listens. */
#define log_debug(...)                                                                                               \
	do {                                                                                                          \
		if (log_wants(LOG_LEVEL_DEBUG))                                                                       \
			log_message(LOG_LEVEL_DEBUG, __VA_ARGS__);                                                    \
	} while (0)

/*
 * Quote bytes for people: 'name', control bytes, quotes, backslashes and bytes that are not UTF-8 as
 * \xNN, so that a hostile name cannot write on a terminal or forge a line. Writes at most cap bytes
 * with the NUL ("…" marks a cut) and returns ret.
 */
char *text_quote(char *ret, size_t cap, const char *bytes);

/* For one use inside an argument list: quotes into a static thread-local ring of 4 buffers. */
const char *quoted(const char *bytes);

#endif
