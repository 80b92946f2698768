/* pack_format: bytes of a pack. A pack is an object of its own (key pack/<hh>/<pack id>, hh = first two hex digits of the id) or lies
 * in a log record right after the header ("inline"). All integers little-endian.
 *
 *   0   8  magic "YSTRPACK"
 *   8   4  format, 1
 *   12  1  suite (crypt.h)
 *   13  1  object type, OBJECT_PACK
 *   14  2  zero
 *   16  16 pack id, random
 *   32  32 salt
 *   64     sealed chunks, one after the other: piece number i is chunk i, final = 0, extra = u32 length || u8 codec || u32 dictionary
 *          (what is sealed: the chunk's bytes, compressed as codec says)
 *   I      sealed index: piece number `count`, final = 1, no extra; clear text: count rows of PACK_ROW_BYTES
 *   end-24 8 offset I; 4 length of the sealed index; 4 count; 8 magic "YSTRPEND"
 *
 * Row: 16 chunk id; u64 offset of the sealed chunk in the pack; u32 stored bytes (tag included); u32 length of the plaintext; u8 codec; 3 zero; u32 dictionary */
#ifndef YESTER_PACK_FORMAT_H
#define YESTER_PACK_FORMAT_H

#define PACK_MAGIC "YSTRPACK"
#define PACK_END_MAGIC "YSTRPEND"
#define PACK_FORMAT 1
#define PACK_HEADER_BYTES 64
#define PACK_TRAILER_BYTES 24
#define PACK_ROW_BYTES 40
#define PACK_CHUNK_EXTRA_BYTES 9
#define PACK_MAX_CHUNK_BYTES (16u << 20) /* plaintext of one chunk; larger is refused before allocating */
#define PACK_MAX_CHUNKS (1u << 20)

enum codec { CODEC_RAW = 0, CODEC_ZSTD = 1 };

#endif
