/* syncd/exit_codes.h — what syncd and syncctl exit with; documented in syncctl(1), checked by tests/e2e. */
#ifndef SYNCD_EXIT_CODES_H
#define SYNCD_EXIT_CODES_H

enum exit_code {
	EXIT_IN_SYNC = 0,
	EXIT_FAILED = 1,      /* any other failure */
	EXIT_USAGE = 2,	      /* wrong arguments */
	EXIT_CONFIG = 3,      /* the configuration has errors */
	EXIT_NO_FOLDER = 4,   /* the folder, or its index, is not there */
	EXIT_HALTED = 5,      /* the root is not what it was, or the index is damaged again and again: halted */
	EXIT_FOLDER_ID = 6,   /* the replicas belong to different folders */
	EXIT_LOCKED = 7,      /* another process has the folder, or no daemon answers */
	EXIT_DENIED = 8,      /* this user may not */
	EXIT_PARTIAL = 9,     /* done, but some paths are not in sync (told) */
	EXIT_HELD = 10,	      /* deletions wait to be confirmed */
	EXIT_SPACE = 11,      /* disk full, here or there */
	EXIT_PROTOCOL = 12,   /* the other side does not speak the protocol, or broke it */
	EXIT_VERSION = 13,    /* no common protocol version, or the folder's state is of another one's format */
	EXIT_CONNECT = 14,    /* could not connect (host, network, time-out, lost connection) */
	EXIT_HOST_KEY = 15,   /* the host key is unknown or has changed */
	EXIT_AUTH = 16,	      /* no key was accepted */
	EXIT_COMMAND = 17,    /* the program on the far side could not be run */
};

#endif
