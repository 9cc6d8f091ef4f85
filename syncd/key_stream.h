/*
 * syncd/key_stream.h — AES in counter mode for who has every block of 16 bytes encrypted by a call of its own.
 *
 * libssh2 does (to 1.10), and libcrypto 3 makes 70 ns of each such call, many times what the encryption takes. Its own interface for
 * implementations, a provider, is used to stand in: the key stream is taken from libcrypto's AES in pieces of 4 KiB, and combined with
 * what comes. Contexts are made, keyed and freed through libcrypto, and each has its own stream, which goes with its key: nothing
 * outlives an exchange of keys. A libssh2 that asks for more at a time is served as well; one with another libcrypto, or with none,
 * is not touched.
 *
 * EVP_Cipher itself is replaced, too, in a program that this is linked into (libcrypto as a shared library): nobody else in it may use the
 * application data of cipher contexts. Where another EVP_Cipher is called all the same, what it does is the same, only slower.
 */
#ifndef SYNCD_KEY_STREAM_H
#define SYNCD_KEY_STREAM_H

#include <openssl/types.h>

enum key_stream_outcome {
	KEY_STREAM_NONE = 1, /* nothing was changed: libcrypto is bound to FIPS providers, or has no AES to build on */
};

/* From here on AES-128-CTR and AES-256-CTR in this process are ours, where no provider is asked for by name. Replaces what
 * openssl.cnf says of default_properties. Before other threads use libcrypto. The provider is the caller's, to be unloaded at the end. */
int key_stream_install(OSSL_PROVIDER **ret);

#endif
