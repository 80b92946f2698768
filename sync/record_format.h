/* record_format: bytes of a log record (key log/<seq, 16 hex digits>) and of a checkpoint
 * (key checkpoint/<seq, 16 hex>-<rand, 16 hex>). All integers little-endian.
 *
 * Log record: header, inline pack (pack_format.h; may be absent), sealed delta.
 *   0    8  magic "YSTRLOG\n"
 *   8    4  format, 1
 *   12   4  schema of the delta, CATALOGUE_SCHEMA
 *   16   16 volume id
 *   32   8  seq N, from 1
 *   40   16 writer id, another at each mount (I16): writer.h
 *   56   8  cut time, signed nanoseconds since 1970, as the writer's clock said
 *   64   32 SHA-256 of all bytes of log/N-1; zero for N = 1
 *   96   8  base checkpoint: seq S; 0 when there is none yet
 *   104  8  its rand
 *   112  32 SHA-256 of the checkpoint object
 *   144  32 SHA-256 of log/S
 *   176  32 salt
 *   208  8  length of the inline pack, 0 when absent
 *   216  8  length of the sealed delta
 *   224  4  flags: RECORD_TAKE_OVER, RECORD_PARTIAL
 *   228  1  suite
 *   229  3  zero
 *   232  4  feature flags compatible; 236 read-only-compatible; 240 incompatible
 *   244  12 zero
 *   256     inline pack, then sealed delta
 * Checkpoint: header and sealed body.
 *   0    8  magic "YSTRCKP\n"
 *   8    4  format, 1
 *   12   4  schema
 *   16   16 volume id
 *   32   8  seq S
 *   40   8  rand
 *   48   32 SHA-256 of log/S
 *   80   32 salt
 *   112  8  length of the sealed body
 *   120  1  suite; 3 zero; u32 incompatible feature flags at 124
 *   128     sealed body
 * Sealed delta and sealed body are a *stream*: a zstd frame of an SQLite database image, cut into segments of
 * RECORD_SEGMENT_BYTES (the last may be shorter, never empty unless it is the only one); segment i is piece number i, final = 1 for the last only,
 * extra = the whole header. Object id for sealing: u64 seq || 8 zero bytes for a record, u64 seq || u64 rand for a checkpoint. */
#ifndef YESTER_RECORD_FORMAT_H
#define YESTER_RECORD_FORMAT_H

#define RECORD_MAGIC "YSTRLOG\n"
#define CHECKPOINT_MAGIC "YSTRCKP\n"
#define RECORD_FORMAT 1
#define RECORD_HEADER_BYTES 256
#define CHECKPOINT_HEADER_BYTES 128
#define RECORD_SEGMENT_BYTES (1u << 20)

#define RECORD_TAKE_OVER 1u /* by a new writer on another writer's head (I17) */
#define RECORD_PARTIAL 2u   /* not a prefix of history: part of an import; not listed, not safe (I7, I24) */

#endif
