/* Fixed codes and a hash chain of limited length: a third larger than zlib's best, and short. */
#include "deflate.h"

enum { WINDOW = 32768, HASH = 32768, CHAIN = 24, LONGEST = 258, SHORTEST = 4 };

static void put_bits(struct deflate *s, unsigned value, unsigned n)
{
    s->bits |= (unsigned long long)value << s->bit_count;
    s->bit_count += n;
    while (s->bit_count >= 8) {
        s->output[s->output_size++] = (unsigned char)s->bits;
        s->bits >>= 8;
        s->bit_count -= 8;
        if (s->output_size == sizeof(s->output)) {
            s->bad |= !s->write(s->context, s->output, s->output_size);
            s->output_size = 0;
        }
    }
}

/* Codes stand with their highest bit first. */
static void put_code(struct deflate *s, unsigned code, unsigned n)
{
    unsigned turned = 0;
    for (unsigned i = 0; i < n; i++)
        turned |= (code >> i & 1) << (n - 1 - i);
    put_bits(s, turned, n);
}

static void put_symbol(struct deflate *s, unsigned symbol)
{
    if (symbol < 144)
        put_code(s, 0x30 + symbol, 8);
    else if (symbol < 256)
        put_code(s, 0x190 + symbol - 144, 9);
    else if (symbol < 280)
        put_code(s, symbol - 256, 7);
    else
        put_code(s, 0xc0 + symbol - 280, 8);
}

static void put_match(struct deflate *s, unsigned length, unsigned distance)
{
    if (length == LONGEST) {
        put_symbol(s, 285);
    } else {
        unsigned n = length - 3, extra = 0;
        while (n >> (extra + 3))
            extra++;
        put_symbol(s, 257 + extra * 4 + (n >> extra));
        put_bits(s, n & ((1u << extra) - 1), extra);
    }
    unsigned d = distance - 1, extra = 0;
    while (d >> (extra + 2))
        extra++;
    put_code(s, extra * 2 + (d >> extra), 5);
    put_bits(s, d & ((1u << extra) - 1), extra);
}

static unsigned hash(const unsigned char *p)
{
    return ((p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24) * 2654435761u) >> 17;
}

static void remember(struct deflate *s, size_t at)
{
    if (at + SHORTEST > s->size)
        return;
    unsigned h = hash(s->data + at) % HASH, place = s->base + at;
    s->previous[place % WINDOW] = s->head[h];
    s->head[h] = place + 1;
}

static void pack(struct deflate *s, BOOL last)
{
    /* Some bytes are kept back so that a match can go on in what comes next. */
    size_t end = last ? s->size : s->size > LONGEST ? s->size - LONGEST : 0;
    while (s->start < end) {
        size_t at = s->start, best = 0, distance = 0;
        if (at + SHORTEST <= s->size) {
            size_t limit = min(s->size - at, (size_t)LONGEST);
            unsigned place = s->head[hash(s->data + at) % HASH];
            for (unsigned tries = CHAIN; place && tries; tries--) {
                size_t back = s->base + at - (place - 1);
                if (back > WINDOW - LONGEST || back > at || !back)
                    break;
                size_t n = 0;
                while (n < limit && s->data[at + n] == s->data[at - back + n])
                    n++;
                if (n > best) {
                    best = n;
                    distance = back;
                }
                place = s->previous[(place - 1) % WINDOW];
            }
        }
        if (best >= SHORTEST) {
            put_match(s, best, distance);
        } else {
            put_symbol(s, s->data[at]);
            best = 1;
        }
        while (best--)
            remember(s, s->start++);
    }
}

BOOL deflate_add(struct deflate *s, const unsigned char *data, size_t size, BOOL last)
{
    if (!s->base) {
        s->base = 1;
        put_bits(s, 3, 3); /* the only block, with fixed codes */
    }
    while (size || last) {
        if (s->size == sizeof(s->data)) {
            size_t drop = s->start - WINDOW;
            memmove(s->data, s->data + drop, s->size - drop);
            s->base += drop;
            s->start -= drop;
            s->size -= drop;
        }
        size_t n = min(size, sizeof(s->data) - s->size);
        memcpy(s->data + s->size, data, n);
        s->size += n;
        data += n;
        size -= n;
        if (s->size == sizeof(s->data) || (last && !size))
            pack(s, last && !size);
        if (last && !size)
            break;
    }
    if (last) {
        put_symbol(s, 256);
        put_bits(s, 0, 7);
        s->bad |= !s->write(s->context, s->output, s->output_size);
        s->output_size = 0;
    }
    return !s->bad;
}
