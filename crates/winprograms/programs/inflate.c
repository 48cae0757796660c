#include "inflate.h"

enum { WINDOW = 65536, MAX_BITS = 15, LITERALS = 288, DISTANCES = 30 };

struct codes {
    unsigned short count[MAX_BITS + 1], symbol[LITERALS];
};

int inflate_byte(struct inflate *s)
{
    if (s->bit_count >= 8) {
        int byte = s->bits & 0xff;
        s->bits >>= 8;
        s->bit_count -= 8;
        return byte;
    }
    if (s->input_at == s->input_size) {
        if (s->input_ended)
            return -1;
        s->input_size = s->read(s->context, s->input, sizeof(s->input));
        s->input_at = 0;
        if (!s->input_size) {
            s->input_ended = TRUE;
            return -1;
        }
    }
    return s->input[s->input_at++];
}

/* The next `n` bits, or -1 at the end of the input. */
static int take_bits(struct inflate *s, unsigned n)
{
    while (s->bit_count < n) {
        unsigned held = s->bit_count;
        unsigned long bits = s->bits;
        s->bit_count = 0;
        int byte = inflate_byte(s);
        if (byte < 0)
            return -1;
        s->bits = bits | (unsigned long)byte << held;
        s->bit_count = held + 8;
    }
    int value = s->bits & ((1u << n) - 1);
    s->bits >>= n;
    s->bit_count -= n;
    return value;
}

/* Canonical codes from their lengths; FALSE when there are more than fit. */
static BOOL make_codes(struct codes *codes, const unsigned char *lengths, unsigned n)
{
    unsigned short offsets[MAX_BITS + 2];
    memset(codes->count, 0, sizeof(codes->count));
    for (unsigned i = 0; i < n; i++)
        codes->count[lengths[i]]++;
    int left = 1;
    for (unsigned i = 1; i <= MAX_BITS; i++) {
        left = left * 2 - codes->count[i];
        if (left < 0)
            return FALSE;
    }
    offsets[1] = 0;
    for (unsigned i = 1; i <= MAX_BITS; i++)
        offsets[i + 1] = offsets[i] + codes->count[i];
    for (unsigned i = 0; i < n; i++)
        if (lengths[i])
            codes->symbol[offsets[lengths[i]]++] = i;
    codes->count[0] = 0;
    return TRUE;
}

static int take_symbol(struct inflate *s, const struct codes *codes)
{
    int code = 0, first = 0, index = 0;
    for (unsigned i = 1; i <= MAX_BITS; i++) {
        int bit = take_bits(s, 1);
        if (bit < 0)
            return -1;
        code |= bit;
        int count = codes->count[i];
        if (code - count < first)
            return codes->symbol[index + (code - first)];
        index += count;
        first = (first + count) << 1;
        code <<= 1;
    }
    return -1;
}

static BOOL flush(struct inflate *s)
{
    if (!s->write(s->context, s->window + s->written, s->window_at - s->written))
        return FALSE;
    memmove(s->window, s->window + s->window_at - WINDOW / 2, WINDOW / 2);
    s->window_at = s->written = WINDOW / 2;
    return TRUE;
}

static inline BOOL put_byte(struct inflate *s, unsigned char byte)
{
    s->window[s->window_at++] = byte;
    return s->window_at < WINDOW || flush(s);
}

static BOOL stored_block(struct inflate *s)
{
    s->bits >>= s->bit_count % 8;
    s->bit_count -= s->bit_count % 8;
    int length = take_bits(s, 16), inverse = take_bits(s, 16);
    if (length < 0 || inverse != (length ^ 0xffff))
        return FALSE;
    while (length--) {
        int byte = inflate_byte(s);
        if (byte < 0 || !put_byte(s, byte))
            return FALSE;
    }
    return TRUE;
}

static BOOL coded_block(struct inflate *s, const struct codes *literals, const struct codes *distances)
{
    static const unsigned short base[] = { 3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                           31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258 };
    static const unsigned char extra[] = { 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                           2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0 };
    static const unsigned short far_base[] = { 1,   2,   3,   4,   5,   7,    9,    13,   17,   25,
                                               33,  49,  65,  97,  129, 193,  257,  385,  513,  769,
                                               1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577 };
    for (;;) {
        int symbol = take_symbol(s, literals);
        if (symbol < 0)
            return FALSE;
        if (symbol < 256) {
            if (!put_byte(s, symbol))
                return FALSE;
            continue;
        }
        if (symbol == 256)
            return TRUE;
        symbol -= 257;
        if (symbol >= 29)
            return FALSE;
        int more = take_bits(s, extra[symbol]), length = base[symbol] + more;
        int far_symbol = take_symbol(s, distances);
        if (more < 0 || far_symbol < 0 || far_symbol >= DISTANCES)
            return FALSE;
        int far_more = take_bits(s, far_symbol < 4 ? 0 : far_symbol / 2 - 1);
        if (far_more < 0)
            return FALSE;
        size_t distance = far_base[far_symbol] + far_more;
        if (distance > s->window_at)
            return FALSE;
        while (length--)
            if (!put_byte(s, s->window[s->window_at - distance]))
                return FALSE;
    }
}

static BOOL fixed_block(struct inflate *s)
{
    static struct codes literals, distances;
    unsigned char lengths[LITERALS];
    for (unsigned i = 0; i < LITERALS; i++)
        lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    make_codes(&literals, lengths, LITERALS);
    memset(lengths, 5, DISTANCES);
    make_codes(&distances, lengths, DISTANCES);
    return coded_block(s, &literals, &distances);
}

static BOOL dynamic_block(struct inflate *s)
{
    static const unsigned char order[] = { 16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                           11, 4,  12, 3, 13, 2, 14, 1, 15 };
    static struct codes literals, distances;
    unsigned char lengths[LITERALS + 32 + 138] = { 0 };
    int nl = take_bits(s, 5) + 257, nd = take_bits(s, 5) + 1, nc = take_bits(s, 4) + 4;
    if (nl < 257 || nl > 286 || nd < 1 || nd > DISTANCES || nc < 4)
        return FALSE;
    for (int i = 0; i < nc; i++) {
        int length = take_bits(s, 3);
        if (length < 0)
            return FALSE;
        lengths[order[i]] = length;
    }
    if (!make_codes(&literals, lengths, 19))
        return FALSE;
    memset(lengths, 0, 19);
    for (int i = 0; i < nl + nd;) {
        int symbol = take_symbol(s, &literals), count = 1, value = symbol;
        if (symbol < 0)
            return FALSE;
        if (symbol == 16) {
            if (!i)
                return FALSE;
            value = lengths[i - 1];
            count = 3 + take_bits(s, 2);
        } else if (symbol > 16) {
            value = 0;
            count = symbol == 17 ? 3 + take_bits(s, 3) : 11 + take_bits(s, 7);
        }
        while (count-- > 0)
            lengths[i++] = value;
        if (i > nl + nd)
            return FALSE;
    }
    return make_codes(&literals, lengths, nl) && make_codes(&distances, lengths + nl, nd)
        && coded_block(s, &literals, &distances);
}

BOOL inflate_stream(struct inflate *s)
{
    s->window_at = s->written = 0;
    for (;;) {
        int last = take_bits(s, 1), type = take_bits(s, 2);
        BOOL good = last < 0 || type < 0 ? FALSE
            : type == 0                  ? stored_block(s)
            : type == 1                  ? fixed_block(s)
            : type == 2                  ? dynamic_block(s)
                                         : FALSE;
        if (!good)
            return FALSE;
        if (last)
            break;
    }
    s->bits >>= s->bit_count % 8;
    s->bit_count -= s->bit_count % 8;
    return s->window_at == s->written
        || s->write(s->context, s->window + s->written, s->window_at - s->written);
}

uint32_t crc32_of(uint32_t crc, const unsigned char *data, size_t size)
{
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (unsigned k = 0; k < 8; k++)
                c = c & 1 ? 0xedb88320 ^ c >> 1 : c >> 1;
            table[i] = c;
        }
    crc = ~crc;
    while (size--)
        crc = table[(crc ^ *data++) & 0xff] ^ crc >> 8;
    return ~crc;
}
