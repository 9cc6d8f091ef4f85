/*
 * merkle/chunker.c — see merkle/chunker.h.
 *
 *     0        avg/4                 avg                          4 avg
 *     |----------|---------------------|----------------------------|
 *      no cut      hash < 2^(64-b-1)     hash < 2^(64-b+1)            cut
 *
 * where avg = 2^b: a cut needs b+1 leading zero bits before the average and b-1 after it. The masks
 * are leading bits, so that they are nested: what cuts at one b may cut at every smaller one. The
 * hash is h = 2 h + gear[byte], which holds the last 64 bytes only; so that hashing starts 64 bytes
 * before the first possible cut and does not depend on where the chunk began.
 *
 * Invariant: after 64 equal bytes x the hash is -gear[x]. The first bit of -gear[0] is set, and any
 * mask asks for it to be clear, so that zeros are cut at the maximum only and a hole is crossed by
 * counting. Checked by a test.
 */
#include "merkle/chunker.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"

#define WINDOW 64 /* bytes that the hash holds */

_Static_assert((UINT32_C(1) << PIECE_BITS_MIN) / 4 >= WINDOW, "the window fits below the shortest piece");

/* 256 outputs of splitmix64 from the seed 0x73796e63642d6763 ("syncd-gc"). Part of the format:
 * never to be changed. */
/* clang-format off */
static const uint64_t gear[256] = {
	0x77fdb7252b1979d1, 0xde9f192f61c44850, 0x1524f65bf8042ac3, 0xd61dd0bf8868a9ad,
	0x96031ea541f4ff7f, 0x8535da2dcf92c424, 0x6e8a88ed4cc35788, 0x9f8e3929c9cabdb5,
	0x3ff0c9d17cb08fa8, 0x6669c465097fa4e9, 0x3fd67f55bbb311f0, 0x5bfcd9454667e2d1,
	0x8a74f722bcec1715, 0x6eccf46dc68c5f59, 0x3846ea3c18efc95a, 0x5bd436e85da98671,
	0x8930cc97c6e25dce, 0xe3f4f561dea97f25, 0x79194c6042e872c1, 0xb0ec7a44af86f75b,
	0x3f7001463d11e4cb, 0x08408d4c90bf63fd, 0xf08d0d7608c516a9, 0x236e5183d0f802b1,
	0xf7857aa00813a20e, 0x4d3a5773f01ce894, 0x8ffbf2ca7a715a34, 0x4207b59a67420579,
	0x33546bc177efd4f1, 0xf7f1f5da20eb860a, 0xfcad08159df15fa2, 0xd5b109ac523d3fdd,
	0x2f65b805932eb0d4, 0xc17841f75a3be29b, 0xd24d31211884f57e, 0x2fa9f5691d252f9d,
	0x1910d9460df5f90b, 0xc8cbb7a2afbb97eb, 0xe8ddc3c7d41670b8, 0x359e76da8e2e6d9e,
	0xf0b148cd78b1cb29, 0x4e24cd55ba7961e7, 0xc0d26192bc143b44, 0xb88cba5955033fec,
	0x8ac7b1b44f94964c, 0x70aa47ae6caa40e0, 0x9a26c1888624be51, 0x265ae6c3266a0c6c,
	0xf2ce0a77158a84cd, 0xaa592c5e791c5db0, 0xc49acfab2447a519, 0xb847bace27e88d74,
	0x434a284968f5191c, 0xa568892cbf283da1, 0x7cb1eec9acce5a84, 0x0ae8ef0aa1f5b774,
	0x6812d41578e2b36f, 0xeeb260b87dc743cf, 0x19114727d52b0cc5, 0x05e6f294efb9e27a,
	0xa37d56f6faa5c89f, 0x4bfffa90db855e5d, 0x5d95a5be6bc5b110, 0x4f7321b17f6f8393,
	0x9aaa598e71579d31, 0xa911e95972ab941e, 0x5034dd04f9ac537b, 0xb22cc8abde021b9b,
	0x3ca6f08ccf2b8448, 0xb22ad390c9af2ca9, 0x57ffb100129bfacf, 0xa63cd0de708c90bb,
	0xd571783ab57160f9, 0x7a8c864c5fa2bb1c, 0x3462ad80a7bd8dd2, 0xcea772f68bb5794e,
	0x2ee2f7609603e66a, 0xbdc0820afaabbd3b, 0x33c05da2c7892819, 0xa7445303322b6b5b,
	0xdad590f4a7ae47fb, 0x0af8bac9ed9fc564, 0x5d6ed1ef65b8d48a, 0x1fdd62821ed72c8c,
	0x883ece33697dce38, 0x6ad2e853058fa8fd, 0x2c412bc70dc42190, 0x6b6f8b2ff746e876,
	0xae06da5d58b77018, 0xa5e0f48b76c6ce0d, 0xaead0790b1013659, 0x42731cb02e688a07,
	0xd49e5ef338c8653a, 0x0352a68446cedb4d, 0x673005df2adb8c6d, 0x8bbe8319c8161daa,
	0x4bcba6f91bf60131, 0xcfd4a79c2bb63ee3, 0xbd2ff49eac669650, 0x273af74bf623bfde,
	0xf62860ac859d1d62, 0x1a81c207bc09d57c, 0x3e9c443bc3c963cd, 0x72b377b095d64b90,
	0x52e2469fb6aa022b, 0x18a17f3f3253c76e, 0x4c6d5d912c8d89e0, 0x07149b713b60c0d5,
	0x7e03f85358472dde, 0xf5f91ba4d5fdc7d3, 0x4afb5d202a2df7db, 0xeeed5309be5ee941,
	0x84d2c70917815e82, 0x7c0153178f0bc0d1, 0x25736807661394c1, 0x60f4f7fa4a668947,
	0xaf45d06bc2865789, 0xd696ebd1bd55c23a, 0x7f8494360c20b3c0, 0x81e6e7ab1c9c0d4d,
	0xe61bb23c82f3cb22, 0x5b167f284304ff4d, 0xacb53c3583ddb59f, 0x82bd28e67703ba82,
	0xbb39b8f129702d20, 0x35c151456b36d946, 0x23fc5fc7cba022a3, 0x1ca97b9914757fb9,
	0x5996358ca86fb8c1, 0x06d61b227be88e2e, 0x50325479e25acf05, 0xbc306581006f50fd,
	0x7253238ee128b975, 0x16af2daa67bd1770, 0x8b8594503f32ef28, 0x0d82d838e9725593,
	0x4264afe56f60676b, 0x4efc74a04d082e46, 0x4ab6bedda85efe4f, 0x23340ef98cd04b9e,
	0x445774b9fc9c50e6, 0x5f5770d3a240f315, 0xa551d0c999b2464e, 0x5692dd1461422abc,
	0xcb7959a11cf6fccd, 0xe99f5050bcbada6a, 0x9bdcc74a12d13c84, 0xeb5288385f2a5bcc,
	0x98c1b2fdecf0b849, 0xfe57f48993ae1353, 0x8f8c691654b2a96b, 0x86c3631e43471b9d,
	0x932364a369fd8e93, 0xb3e925067a76cdf0, 0x11b03a6ed2fd0bbc, 0x6b58289ead6b5ace,
	0x2e7f5d80dc9cb19c, 0x84660d4bc757b9f8, 0x6b10bfbb8ea652c2, 0xdb3224b18fcde479,
	0xed3222561249e262, 0xfed0db3ee4539f8f, 0xa38f012440763665, 0xaff4e8a4a566e660,
	0xfa58a042ce0df537, 0xfddddf3aae3e2656, 0xf67da15fe5fff197, 0x46ecf2ba073e91ec,
	0x9ca680dd45f32ef6, 0xda6acad861793700, 0x1cdd253d25fed2f6, 0x07e9100a4db0a82e,
	0x323e4c55b841ddef, 0x5c9134a5bae07fd3, 0x504a798e3f855bdc, 0xede7164f3e292aa0,
	0xcf7a7941961f2c04, 0x22bccde29469dc60, 0x10178f68f9806ca3, 0xfd6180420b414098,
	0x3cd49d32e4a1e1b2, 0x52fbcb56cccf1196, 0x600856ee68761def, 0x5c609914330e2f4b,
	0x47947317975f2807, 0x9df7cbf85249b43c, 0x9fe4b6e7c45f3e24, 0x516179a43c7fd8e2,
	0x6e3a379cf6a6665d, 0xa4b1de7c02a21388, 0xb614e80c69ab6bb3, 0x4d2b2c31cba46c71,
	0x2107cc15fc24c648, 0x378f18e6203bb614, 0xb4a9910a3b2c6973, 0x94ca50ff899f4c00,
	0xa2cb83dcaf388273, 0x9154c308aab8703d, 0x75a01b8ebe4d21e0, 0x6b49674da8e99156,
	0xcb376b4d6f4c97fd, 0xc33c3a774447faaa, 0x606a2cf85de2a15b, 0x404df5996992235a,
	0x65c08537df653872, 0xce9e142a15629c87, 0x6948e881cbde947a, 0xe51bd4d8bee5b85c,
	0x7b480e23e1d0909c, 0xe519f9900549bd17, 0xc848d5a14541f0ad, 0xc77b55b66f038ceb,
	0x23c631653ddd6844, 0x6119a794bc27387b, 0xff196dab216c261d, 0x1cb9dc4da38623a0,
	0x3df80155e5e717d5, 0xb8ad60a9509e8581, 0x6cf98f28f2dadfe5, 0x50406c8707fd8660,
	0xa8cc1173d3035fe8, 0xf4999058b8c2caa8, 0xe50d788dbba8025e, 0xdddef165ad1ddec8,
	0x6208060937c6aa19, 0x25ad4132d1f97f47, 0x81503f699b11d1cd, 0x2d55886e8a8cf0aa,
	0x0795e9928890ca0d, 0xf3b8a925901dafca, 0xf7114e409dab4299, 0x15b43b62a1bfcf56,
	0x9a49bbefd7d0b096, 0x4df297fe6363415a, 0x5366e394a3134ef1, 0xa4f982c9a2d99774,
	0x9ece5c032dbeeff0, 0x9485f40eacc4c100, 0xc60eb77aeb6a99e1, 0x36bebafe999612a7,
	0x3b76e48cc6f8a736, 0x675b674b8e820400, 0xb4ade0366a7ac6e6, 0xfd2a84b99e1823ce,
	0x72f1c75c0e76afb8, 0x057b77920680a317, 0xa3c0f7cc2fd8e0a9, 0x07d489c45cddc86b,
	0x659f7713439f06d0, 0x513e519fc5b16947, 0x52ed28186f3b4288, 0xa3626d17bbf85721,
	0xb61fbac5bcd18a10, 0x620b5792b1429b1e, 0x9aca74abf3d004fa, 0x33b13bf49c2a4bb2,
};
/* clang-format on */

uint8_t chunk_bits_for_size(uint64_t size)
{
	uint8_t bits = CHUNK_BITS_MIN;

	while (bits < CHUNK_BITS_MAX && size / 32768 >= UINT64_C(2) << bits)
		bits++;
	return bits;
}

uint64_t chunk_count_max(uint64_t size, uint8_t bits)
{
	return (size >> (bits - 2)) + 1;
}

/* Position behind the first byte in p[from..to) after which the hash is below the limit, or 0; *h
 * goes on. */
static size_t find_cut(const uint8_t *p, size_t from, size_t to, uint64_t limit, uint64_t *h)
{
	uint64_t hash = *h;

#pragma GCC unroll 8 /* half as fast again */
	for (size_t i = from; i < to; i++) {
		hash = (hash << 1) + gear[p[i]];
		if (hash < limit)
			return i + 1;
	}
	*h = hash;
	return 0;
}

static size_t at_most(size_t n, size_t limit)
{
	return n < limit ? n : limit;
}

/* The first cut, which the bytes behind it don't change; 0: it is not among these n. */
static size_t find_first(const uint8_t *p, size_t n, uint8_t bits)
{
	size_t average = (size_t)1 << bits, shortest = average / 4, cut;
	uint64_t h = 0;

	if (n <= shortest)
		return 0;
	find_cut(p, shortest - WINDOW, shortest - 1, 0, &h);
	cut = find_cut(p, shortest - 1, at_most(n, average), UINT64_C(1) << (63 - bits), &h);
	if (!cut)
		cut = find_cut(p, average, at_most(n, 4 * average), UINT64_C(1) << (65 - bits), &h);
	return cut || n < 4 * average ? cut : 4 * average;
}

/* For n bytes of which the cut is sure: they are four averages, or all. */
static size_t cut_first(const uint8_t *p, size_t n, uint8_t bits)
{
	size_t cut = find_first(p, n, bits);

	return cut ? cut : n;
}

size_t chunker_cut(const uint8_t *p, size_t n, uint8_t bits, bool last)
{
	assert(bits >= CHUNK_BITS_MIN && bits <= CHUNK_BITS_MAX);
	assert(last || n >= (size_t)4 << bits);
	return cut_first(p, n, bits);
}

size_t chunker_piece(const uint8_t *p, size_t n, uint8_t bits)
{
	assert(bits >= PIECE_BITS_MIN && bits <= PIECE_BITS_MAX);
	return cut_first(p, n, bits);
}

/* --- a whole file --- */

/*
 * Reading and cutting is cheap beside hashing, so that the caller does that, and the pool's threads hash what was cut:
 *
 *   buffers   0: [ c0 c1 c2 … | tail ]   1: [ tail … cn cn+1 … ]
 *   slots     a ring: what was cut and not handed out yet, in order
 *
 * A buffer is filled again once what was cut from it was handed out, which the caller waits for, hashing himself what nobody
 * has begun. Without a pool there is one buffer, and each chunk is handed out before the next one is cut.
 */
#define SLOTS 64
#define BUFFERS 2

struct slot {
	struct pool_job job;
	enum hash_algorithm algorithm;
	const uint8_t *bytes; /* NULL: a hole */
	unsigned buffer;
	struct chunk chunk;
};

struct run {
	const struct chunker_file *file;
	chunker_emit *emit;
	void *data;
	size_t longest; /* chunk */

	uint8_t *buffers[BUFFERS]; /* owned; the second with a pool only */
	unsigned buffer;	   /* in use: file bytes [offset, offset + filled) */
	size_t capacity;	   /* of each */
	size_t at, filled; /* the next chunk begins at buffer + at; bytes behind that */
	uint64_t offset;   /* in the file, of the next chunk */

	uint64_t data_from, data_to; /* the last range of data that was looked up */
	bool skipped;		     /* a hole was crossed unread: has the file still its size? */

	bool zero_known;
	struct hash zero; /* of the longest chunk of zeros */

	struct slot *slots; /* owned; first … first + n, modulo SLOTS */
	size_t first, n;
};

static bool all_zero(const uint8_t *p, size_t n)
{
	return n && !p[0] && !memcmp(p, p + 1, n - 1);
}

static void hash_slot(struct pool_job *job)
{
	struct slot *s = (struct slot *)job;

	s->chunk.zero = all_zero(s->bytes, s->chunk.length);
	hash_bytes(s->algorithm, s->bytes, s->chunk.length, &s->chunk.hash);
}

static struct slot *slot_at(const struct run *u, size_t i)
{
	return &u->slots[(u->first + i) % SLOTS];
}

/* Hand out the oldest chunk. */
static int hand_out(struct run *u)
{
	struct pool *pool = u->file->pool;
	struct slot *s = slot_at(u, 0);

	if (s->bytes) {
		for (size_t i = 0; i < u->n && !pool_done(pool, &s->job); i++)
			if (slot_at(u, i)->bytes)
				pool_help(pool, &slot_at(u, i)->job);
		pool_wait(pool, &s->job);
	}
	u->first = (u->first + 1) % SLOTS;
	u->n--;
	return u->emit(&s->chunk, s->chunk.zero ? NULL : s->bytes, u->data);
}

/* *ret: bytes of hole from the next chunk's start on; 0 in data. */
static int hole_length(struct run *u, uint64_t *ret)
{
	int r;

	if (u->offset >= u->data_to) {
		r = file_next_data(u->file->fd, u->offset, u->file->size, &u->data_from, &u->data_to);
		if (r < 0)
			return r;
		if (r == FILE_END)
			u->data_from = u->data_to = u->file->size;
	}
	*ret = u->offset < u->data_from ? u->data_from - u->offset : 0;
	return 0;
}

/* n bytes of zeros that were not read. */
static int hash_zeros(struct run *u, size_t n, struct hash *ret)
{
	static const uint8_t zeros[4096];
	struct hash_state *s;
	int r;

	if (n == u->longest && u->zero_known) {
		*ret = u->zero;
		return 0;
	}
	r = hash_state_new(&s, u->file->algorithm);
	if (r < 0)
		return r;
	for (size_t left = n; left; left -= at_most(left, sizeof(zeros)))
		hash_state_update(s, zeros, at_most(left, sizeof(zeros)));
	hash_state_finish(s, ret);
	hash_state_free(s);
	if (n == u->longest) {
		u->zero = *ret;
		u->zero_known = true;
	}
	return 0;
}

/* Nothing that was cut from the buffer is needed any more. */
static int empty_buffer(struct run *u, unsigned buffer)
{
	int r = 0;

	while (!r && u->n && slot_at(u, 0)->buffer == buffer)
		r = hand_out(u);
	return r;
}

/* Make the buffer hold a longest chunk at least, or all that is left. */
static int fill(struct run *u)
{
	uint64_t left = u->file->size - u->offset;
	unsigned next = u->buffers[1] ? !u->buffer : 0;
	size_t want, got;
	int r;

	r = empty_buffer(u, next);
	if (r != 0)
		return r;
	memmove(u->buffers[next], u->buffers[u->buffer] + u->at, u->filled);
	u->buffer = next;
	u->at = 0;
	want = left < u->capacity ? (size_t)left : u->capacity;
	pace_read(u->file->pace, want - u->filled);
	r = file_read_as(u->file->fd, u->buffers[next] + u->filled, want - u->filled, u->offset + u->filled, u->file->uncached, &got);
	if (r != 0)
		return r;
	if (got < want - u->filled)
		return CHUNKER_CHANGED;
	u->filled = want;
	return 0;
}

static void advance(struct run *u, size_t n)
{
	u->offset += n;
	u->at = n < u->filled ? u->at + n : 0;
	u->filled -= at_most(n, u->filled);
}

/* Cross one chunk's length of hole. */
static int take_hole(struct run *u, struct slot *s)
{
	uint64_t left = u->file->size - u->offset;
	size_t n = left < u->longest ? (size_t)left : u->longest;

	u->filled = u->at = 0; /* what was read ahead is zeros as well */
	s->chunk.length = (uint32_t)n;
	s->chunk.zero = true;
	u->skipped = true;
	return hash_zeros(u, n, &s->chunk.hash);
}

/* Where the next chunk ends. What is in the buffer is moved only when no cut is in it: that is little, most times. */
static int find_end(struct run *u, size_t *ret)
{
	int r = 0;

	*ret = find_first(u->buffers[u->buffer] + u->at, u->filled, u->file->bits);
	if (*ret)
		return 0;
	if (u->filled < u->file->size - u->offset)
		r = fill(u);
	if (r == 0)
		*ret = chunker_cut(u->buffers[u->buffer] + u->at, u->filled, u->file->bits, u->filled == u->file->size - u->offset);
	return r;
}

static int take_bytes(struct run *u, struct slot *s)
{
	size_t length;
	int r = find_end(u, &length);

	if (r != 0)
		return r;
	s->bytes = u->buffers[u->buffer] + u->at;
	s->buffer = u->buffer;
	s->algorithm = u->file->algorithm;
	s->job.run = hash_slot;
	s->chunk.length = (uint32_t)length;
	pool_add(u->file->pool, &s->job, true);
	return 0;
}

static int next_chunk(struct run *u)
{
	struct slot *s = slot_at(u, u->n);
	uint64_t hole;
	int r = hole_length(u, &hole);

	if (r < 0)
		return r;
	*s = (struct slot){.chunk.offset = u->offset, .buffer = u->buffer};
	r = hole < u->longest && hole < u->file->size - u->offset ? take_bytes(u, s) : take_hole(u, s);
	if (r != 0)
		return r;
	u->n++;
	advance(u, s->chunk.length);
	return 0;
}

static int run_all(struct run *u)
{
	size_t ahead = u->file->pool ? SLOTS : 1;
	struct file_stat st;
	int r = 0;

	while (u->offset < u->file->size && !r) {
		if (u->file->cancelled && u->file->cancelled(u->file->data))
			return -ECANCELED;
		pace_worked(u->file->pace);
		r = next_chunk(u);
		if (!r && u->n == ahead)
			r = hand_out(u);
	}
	while (u->n && !r)
		r = hand_out(u);
	if (r || !u->skipped)
		return r;
	r = file_stat_fd(u->file->fd, &st);
	return r == 0 && st.size < u->file->size ? CHUNKER_CHANGED : r;
}

static int run_cut(const struct chunker_file *file, chunker_emit *emit, void *data)
{
	struct run u = {.file = file, .emit = emit, .data = data, .longest = (size_t)4 << file->bits};
	int r = -ENOMEM;

	u.capacity = file->size < 2 * u.longest ? (size_t)file->size : 2 * u.longest;
	u.slots = calloc(SLOTS, sizeof(*u.slots));
	u.buffers[0] = malloc(u.capacity);
	if (file->pool && u.capacity < file->size)
		u.buffers[1] = malloc(u.capacity); /* not there: more slowly */
	if (u.slots && u.buffers[0])
		r = run_all(&u);
	for (; u.n; u.n--)
		if (slot_at(&u, u.n - 1)->bytes)
			pool_cancel(file->pool, &slot_at(&u, u.n - 1)->job);
	free(u.buffers[0]);
	free(u.buffers[1]);
	free(u.slots);
	return r;
}

/* A file that is one chunk whatever it holds: read, without asking for holes. */
static int run_single(const struct chunker_file *file, chunker_emit *emit, void *data)
{
	struct slot s = {.algorithm = file->algorithm, .chunk.length = (uint32_t)file->size};
	uint8_t *bytes = malloc((size_t)file->size + 1);
	size_t got;
	int r;

	if (!bytes)
		return -ENOMEM;
	pace_read(file->pace, file->size);
	r = file->size ? file_read_as(file->fd, bytes, (size_t)file->size, 0, file->uncached, &got) : 0;
	if (r == 0 && file->size && got < file->size)
		r = CHUNKER_CHANGED;
	if (r == 0) {
		s.bytes = bytes;
		hash_slot(&s.job);
		r = emit(&s.chunk, s.chunk.zero || !file->size ? NULL : bytes, data);
	}
	free(bytes);
	return r;
}

int chunker_run_file(const struct chunker_file *file, chunker_emit *emit, void *data)
{
	assert(file->bits >= CHUNK_BITS_MIN && file->bits <= CHUNK_BITS_MAX);
	if (file->size <= CHUNK_SINGLE_BYTES_MAX)
		return run_single(file, emit, data);
	return run_cut(file, emit, data);
}
