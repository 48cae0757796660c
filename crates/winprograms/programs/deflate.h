/* Deflate (RFC 1951), to pack. */
#ifndef SILO_DEFLATE_H
#define SILO_DEFLATE_H

#include "rt.h"

struct deflate {
    BOOL (*write)(void *context, const unsigned char *data, size_t size);
    void *context;
    unsigned char data[65536 + 32768]; /* what was packed last, and what is to be packed */
    size_t start, size;
    unsigned head[32768], previous[32768]; /* places of data + 1 since the beginning; 0: none */
    unsigned base;                       /* the place of data[0] */
    unsigned char output[16384];
    size_t output_size;
    unsigned long long bits;
    unsigned bit_count;
    BOOL bad;
};

/* Packs more, and with `last` ends the stream. FALSE when `write` refused. */
BOOL deflate_add(struct deflate *state, const unsigned char *data, size_t size, BOOL last);

#endif
