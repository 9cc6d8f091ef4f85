/*
 * syncd/config_internal.h — what the parts of syncd/config share:
 *
 *   config.c          lines, sections, keys, and what must hold between them
 *   config_values.c   what stands behind a key's "="
 */
#ifndef SYNCD_CONFIG_INTERNAL_H
#define SYNCD_CONFIG_INTERNAL_H

#include "syncd/config.h"

#define SECOND_MS INT64_C(1000)
#define HOUR_MS (3600 * SECOND_MS)
#define DAY_MS (24 * HOUR_MS)
#define EVER_MS (36500 * DAY_MS)

enum config_section { SECTION_NONE, SECTION_DAEMON, SECTION_FOLDER, SECTION_PEER, SECTION_UNKNOWN };

struct config_word {
	const char *text;
	unsigned value;
};

struct config_key;

/* Set *to (offset; to_n: offset_n). -EINVAL with what is wrong in *ret_why ("…: what to do"), or -ENOMEM. */
typedef int config_value(const struct config_key *key, const char *value, void *to, size_t *to_n, const char **ret_why);

struct config_key {
	enum config_section section;
	const char *name;
	config_value *parse;
	size_t offset, offset_n; /* in struct config, config_folder, config_peer */
	bool required;
	int64_t min, max;	  /* durations */
	const struct config_word *words; /* ends with a NULL text */
	const char *say;	  /* words: what may be given */
};

config_value config_value_path, config_value_socket, config_value_text, config_value_words, config_value_flag, config_value_time,
	config_value_bytes, config_value_rate, config_value_percent, config_value_number, config_value_list, config_value_ids;

void config_free_list(char **list, size_t n);

#endif
