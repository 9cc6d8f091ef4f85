/*
 * transfer/frame.h — the byte stream: a preface, then frames. No input or output.
 *
 *   preface   "syncd" 0x00, u8 lowest version spoken, u8 highest         (8 bytes, first thing on the stream, both ways)
 *   frame     u32 payload length, u8 type, u8 flags, u16 zero, u32 check, payload        (little-endian, 12 bytes + payload)
 *             check: low 32 bits of XXH3-64 over the first 8 header bytes and the payload, seeded by the frame's number
 *             (from 0, each direction), so that nothing is dropped, doubled or reordered unseen
 *             flag 1: the payload is u32 raw length, then one zstd frame of exactly that many bytes
 *             flag 2: the payload is u32 raw length, then what makes that many bytes of a zstd frame that goes on from one frame of ours
 *             to the next of flag 2, each ended by a flush, and never ends; flag 4 with it: it begins here
 *
 * The highest version that both speak is used. Lengths are checked against the message table before anything is
 * allocated; a compressed payload is decoded into a buffer of its announced and checked size. One by itself is in one step, so that there
 * is no window whose size a peer could choose; that of the context that goes on is FRAME_WINDOW_BITS at most. Unknown flags and a
 * non-zero reserved field are refused.
 */
#ifndef TRANSFER_FRAME_H
#define TRANSFER_FRAME_H

#include "base/buf.h"

#define FRAME_PREFACE_BYTES 8
#define FRAME_HEADER_BYTES 12
/* 1: GREET had a flag `joined`, and no former ids; it could leave a replica in a folder of its own.
 * 2: FETCH had no names, and there was no PIECES.
 * 3: there was no MATCH.
 * 4: there was no PUSH: such a peer is sent none.
 * 5: there was no flag 2, likewise.
 * 6: there was no PUSH in the first round, likewise.
 * 7: there was no BULK, likewise.
 * 8: HELLO did not say what is left out: none is told.
 * 9: there was no NODES_NAMED, and no NODES_TOLD: likewise. */
#define FRAME_VERSION_MIN 4
#define FRAME_VERSION_MAX 10
#define FRAME_VERSION_PUSH 5
#define FRAME_VERSION_CONTEXT 6
#define FRAME_VERSION_FIRST 7
#define FRAME_VERSION_BULK 8
#define FRAME_VERSION_UNREAD 9
#define FRAME_VERSION_TOLD 10
#define FRAME_WINDOW_BITS 19	     /* of the context that payloads share: about 1 MiB for who reads, 1.6 MiB for who writes */
#define FRAME_CONTEXT_BYTES 64	     /* a payload may be so much longer on the wire with it */
#define FRAME_COMPRESS_MIN_BYTES 192 /* shorter payloads are not tried: a tenth at most would be gained */
#define FRAME_LEVEL_MAX 19	     /* of zstd; beyond it memory grows without use to us */
#define FRAME_LONG_BYTES (8 * 1024) /* a payload of so many bytes, or any in a shared context, says something about the next one */
#define FRAME_POOR_MIN 16
#define FRAME_PASS_MAX 7
#define FRAME_LOOK_LEVEL 1 /* at most, for the one in between: what is like noise costs a high level 20 times as much */
#define FRAME_GARBAGE_BYTES 80	     /* of a foreign stream's beginning are kept */

void frame_put_preface(struct buf *out);

/* --- writing --- */
struct frame_writer;
/* A level above FRAME_LEVEL_MAX is taken as that. */
int frame_writer_new(struct frame_writer **ret, int zstd_level);
void frame_writer_free(struct frame_writer *w);
void frame_writer_level(struct frame_writer *w, int zstd_level); /* from now on */
void frame_writer_plain(struct frame_writer *w); /* from now on nothing is compressed */
/* From now on its payloads share a context: what comes is told by what came. All that it prepares must be put on the stream then, in
 * that order; one writer of a stream only. */
void frame_writer_share(struct frame_writer *w);
/* Append one frame to out; compresses where that pays (a gain of 5 %; or a context is shared) and `compress` is set. After FRAME_POOR_MIN long payloads in a row
 * for which it did not (any, where a context is shared), such ones are passed through, up to FRAME_PASS_MAX at a time. The payload must not be
 * inside out. On failure (-EMSGSIZE, or out's sticky error) nothing was appended and the frame was not counted. */
int frame_write(struct frame_writer *w, struct buf *out, uint8_t type, const void *payload, size_t n, bool compress);
/* The same in two halves, so that another thread may do what costs time: with a writer of its own it appends frames that have no
 * number yet to `frames`; they are numbered as they are appended to out. An empty out takes the memory of `frames`, which has out's then. */
int frame_prepare(struct frame_writer *w, struct buf *frames, uint8_t type, const void *payload, size_t n, bool compress);
/* The first half of a payload that the caller puts into frames, after frame_begin, which says where the frame begins; on failure
 * nothing was appended. */
size_t frame_begin(struct buf *frames);
int frame_end(struct frame_writer *w, struct buf *frames, size_t start, uint8_t type, bool compress);
int frame_write_prepared(struct frame_writer *w, struct buf *out, struct buf *frames);

/* --- reading --- */
struct frame_reader;
/* max_bytes(type): longest raw payload of a type, 0 for unknown types (which are refused; a known type that has no
 * payload says 1). No payload is longer on the wire than raw, but by FRAME_CONTEXT_BYTES where a context is shared. */
int frame_reader_new(struct frame_reader **ret, size_t (*max_bytes)(uint8_t type));
void frame_reader_free(struct frame_reader *r);

enum frame_outcome {
	FRAME_MORE = 1,	   /* needs more input */
	FRAME_NOT_SYNCD,   /* the stream did not begin with the preface: frame_reader_garbage() */
	FRAME_VERSION,	   /* no common version: frame_reader_versions() */
};

/* Hand over input; it is buffered. Call frame_read until FRAME_MORE before feeding again: -ENOBUFS while what frame_read
 * last waited for is already here, so that the buffer never holds more than one unfinished frame (its length already
 * checked) and n bytes. Memory grows with what arrived, not with what was announced. */
int frame_reader_feed(struct frame_reader *r, const void *p, size_t n);
/* The next frame. *ret_payload is valid until the next call on this reader, never NULL. -EBADMSG: damaged or hostile.
 * Everything but 0 and FRAME_MORE is final: later calls return the same. */
int frame_read(struct frame_reader *r, uint8_t *ret_type, const uint8_t **ret_payload, size_t *ret_n);
/* After the preface: the version in use; 0 before, or if there is none in common. */
uint8_t frame_reader_version(const struct frame_reader *r);
/* What the peer speaks: after the preface, 0 before. */
void frame_reader_versions(const struct frame_reader *r, uint8_t *ret_min, uint8_t *ret_max);
/* The first FRAME_GARBAGE_BYTES of what is not syncd's protocol (a login message, an error of the shell), as text for
 * people, quoted by text_quote(). After FRAME_NOT_SYNCD more may be fed to complete it. "" if there is none. */
const char *frame_reader_garbage(const struct frame_reader *r);

#endif
