/* Bytes of tokens become text: stop texts over token borders, characters that are never split. */
#include <stdlib.h>
#include <string.h>

#include "gemma_internal.h"

bool fz_bytes_add(fz_bytes *b, const char *data, size_t len) {
    if (b->len + len > b->cap) {
        size_t cap = b->cap ? b->cap * 2 : 256;
        while (cap < b->len + len) cap *= 2;
        char *grown = realloc(b->data, cap);
        if (!grown) return false;
        b->data = grown;
        b->cap = cap;
    }
    if (len) memcpy(b->data + b->len, data, len);
    b->len += len;
    return true;
}

void fz_bytes_drop(fz_bytes *b, size_t len) {
    if (len == 0) return;
    memmove(b->data, b->data + len, b->len - len);
    b->len -= len;
}

void fz_bytes_free(fz_bytes *b) {
    free(b->data);
    memset(b, 0, sizeof *b);
}

/* The length of the character at `p`: 1 to 4; 0: it is cut off after `n` bytes; -1: it is no UTF-8. */
static int character(const unsigned char *p, size_t n) {
    unsigned char c = p[0];
    if (c < 0x80) return 1;
    if (c < 0xC2 || c > 0xF4) return -1;
    size_t len = c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    for (size_t i = 1; i < len; i++) {
        if (i >= n) return 0;
        unsigned char low = 0x80, high = 0xBF;
        if (i == 1) { /* overlong forms, surrogates, over U+10FFFF */
            if (c == 0xE0) low = 0xA0;
            if (c == 0xED) high = 0x9F;
            if (c == 0xF0) low = 0x90;
            if (c == 0xF4) high = 0x8F;
        }
        if (p[i] < low || p[i] > high) return -1;
    }
    return (int)len;
}

bool fz_text_move(fz_bytes *held, size_t len, fz_bytes *out) {
    const unsigned char *p = (const unsigned char *)held->data;
    size_t i = 0, from = 0;
    while (i < len) {
        int n = character(p + i, len - i);
        if (n > 0) {
            i += (size_t)n;
            continue;
        }
        if (i > from && !fz_bytes_add(out, held->data + from, i - from)) return false;
        if (!fz_bytes_add(out, "\xEF\xBF\xBD", 3)) return false;
        from = ++i;
    }
    if (i > from && !fz_bytes_add(out, held->data + from, i - from)) return false;
    fz_bytes_drop(held, len);
    return true;
}

static bool begins(const char *at, size_t n, const char *text, size_t len) {
    return n >= len && memcmp(at, text, len) == 0;
}

int64_t fz_text_stop(const fz_bytes *held, const fz_params *params) {
    if (params->n_stop == 0) return -1;
    for (size_t i = 0; i < held->len; i++)
        for (int32_t k = 0; k < params->n_stop; k++)
            if (begins(held->data + i, held->len - i, params->stop[k], (size_t)params->stop_len[k]))
                return (int64_t)i;
    return -1;
}

size_t fz_text_keep(const fz_bytes *held, const fz_params *params) {
    size_t keep = 0;
    for (int32_t k = 0; k < params->n_stop; k++) {
        size_t longest = (size_t)params->stop_len[k] - 1;
        if (longest > held->len) longest = held->len;
        for (size_t n = longest; n > keep; n--)
            if (memcmp(held->data + held->len - n, params->stop[k], n) == 0) {
                keep = n;
                break;
            }
    }
    /* The text before the kept part must not end within a character either: three bytes back are enough. */
    size_t end = held->len - keep;
    for (size_t back = 1; back <= 3 && back <= end; back++) {
        const unsigned char *p = (const unsigned char *)held->data + end - back;
        if ((*p & 0xC0) == 0x80) continue;
        if (character(p, back) == 0) keep += back;
        break;
    }
    return keep;
}

size_t fz_text_cut(const fz_bytes *out, size_t cap) {
    if (out->len <= cap) return out->len;
    size_t n = cap;
    while (n > 0 && ((unsigned char)out->data[n] & 0xC0) == 0x80) n--;
    return n;
}
