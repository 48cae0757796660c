/* Deflate (RFC 1951), to unpack. */
#ifndef SILO_INFLATE_H
#define SILO_INFLATE_H

#include "rt.h"

struct inflate {
    /* Gives the next bytes; 0 at the end. */
    size_t (*read)(void *context, unsigned char *buffer, size_t size);
    /* Takes unpacked bytes; FALSE ends everything. */
    BOOL (*write)(void *context, const unsigned char *data, size_t size);
    void *context;
    unsigned char input[16384];
    size_t input_size, input_at;
    BOOL input_ended;
    unsigned long bits;
    unsigned bit_count;
    unsigned char window[65536]; /* the last 32 KiB, and what is still to be written */
    size_t window_at, written;
};

/* Unpacks one stream. Afterwards inflate_byte goes on with the byte behind it. */
BOOL inflate_stream(struct inflate *state);
/* The next byte of the input; -1 at its end. Only between streams. */
int inflate_byte(struct inflate *state);

/* Continues the check sum of RFC 1952; begins with 0. */
uint32_t crc32_of(uint32_t crc, const unsigned char *data, size_t size);

#endif
