/*
 * Our own kernel for all logits against a plain one that multiplies and adds in the order that llama.cpp has: the same
 * bits, for one to three hidden rows, of any length, with the least and the greatest numbers that a block may hold.
 * Compiled for the processor that it runs on; where there is no kernel for that, it says so and ends with 2.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../gemma_internal.h"

typedef struct { uint16_t scale; int8_t q[32]; } block;

size_t ggml_row_size(enum ggml_type type, int64_t n) { return type == GGML_TYPE_Q8_0 ? sizeof(block) * (size_t)(n / 32) : 0; }

static float of_half(uint16_t h) {
    uint32_t exponent = h >> 10 & 31, mantissa = h & 1023;
    float x = exponent == 0 ? ldexpf((float)mantissa, -24) : ldexpf((float)(1024 + mantissa), (int)exponent - 25);
    return h >> 15 ? -x : x;
}

static float plain(const block *w, const block *y, int32_t n_blocks) {
    float sum[8] = {0};
    for (int32_t b = 0; b < n_blocks; b++) {
        float scale = of_half(w[b].scale) * of_half(y[b].scale);
        for (int32_t lane = 0; lane < 8; lane++) {
            int32_t dot = 0;
            for (int32_t i = 4 * lane; i < 4 * lane + 4; i++) dot += w[b].q[i] * y[b].q[i];
            sum[lane] = fmaf(scale, (float)dot, sum[lane]);
        }
    }
    float four[4];
    for (int32_t i = 0; i < 4; i++) four[i] = sum[i + 4] + sum[i];
    return (four[0] + four[2]) + (four[1] + four[3]);
}

static void fill(block *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        b[i].scale = (uint16_t)(rand() % 0x7c00 | (rand() % 2) << 15); /* no infinity */
        int32_t kind = rand() % 4;
        for (int32_t j = 0; j < 32; j++) b[i].q[j] = (int8_t)(kind == 0 ? -128 : kind == 1 ? 127 : rand() % 256 - 128);
    }
}

int main(void) {
    static const int32_t LENGTHS[] = {32, 64, 96, 640, 1152, 2560};
    enum { TOKENS = 37 };
    if (!fz_matrix_knows(GGML_TYPE_Q8_0)) {
        printf("no kernel for this processor\n");
        return 2;
    }
    int64_t compared = 0, differ = 0;
    for (size_t l = 0; l < sizeof LENGTHS / sizeof *LENGTHS; l++) {
        int32_t n_embd = LENGTHS[l], n_blocks = n_embd / 32;
        block *matrix = malloc(sizeof *matrix * TOKENS * (size_t)n_blocks), *hidden = malloc(sizeof *hidden * FZ_WHOLE * (size_t)n_blocks);
        char *prepared = malloc(FZ_WHOLE * fz_matrix_room(n_embd));
        fill(matrix, TOKENS * (size_t)n_blocks);
        fill(hidden, FZ_WHOLE * (size_t)n_blocks);
        for (int32_t i = 0; i < FZ_WHOLE; i++)
            fz_matrix_prepare(hidden + (size_t)i * (size_t)n_blocks, n_embd, prepared + (size_t)i * fz_matrix_room(n_embd));
        for (int32_t n = 1; n <= FZ_WHOLE; n++)
            for (int32_t token = 0; token < TOKENS; token++) {
                float out[FZ_WHOLE];
                fz_matrix_multiply(matrix, token, n_embd, prepared, n, out);
                for (int32_t i = 0; i < n; i++, compared++) {
                    float right = plain(matrix + (size_t)token * (size_t)n_blocks, hidden + (size_t)i * (size_t)n_blocks, n_blocks);
                    differ += memcmp(&out[i], &right, sizeof right) != 0;
                }
            }
        free(matrix);
        free(hidden);
        free(prepared);
    }
    printf("%lld logits, %lld differ\n", (long long)compared, (long long)differ);
    return differ || compared == 0 ? 1 : 0;
}
