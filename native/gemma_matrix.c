/*
 * All logits, from the output matrix by a kernel of our own. llama.cpp's for Q8_0 takes twice as long as reading the matrix
 * does, and for one to three rows the reading is all that there is to wait for. The numbers are multiplied exactly and added
 * up in llama.cpp's order, block by block in eight lanes, so the logits have the same bits; gemma_rows.c looks at that.
 *
 * The processor multiplies unsigned by signed bytes. A weight is made unsigned by flipping its sign, which adds 128 to it;
 * what that adds to a sum of four is taken off by what the sum begins with.
 */
#include "gemma_internal.h"

enum { BLOCK = 32, LANES = 8, AHEAD_BYTES = 8192 };

#if defined(__FMA__) && defined(__F16C__) && ((defined(__AVX512VNNI__) && defined(__AVX512VL__)) || defined(__AVXVNNI__))
#include <immintrin.h>

#ifdef __AVX512VNNI__
#define DOT_ADD _mm256_dpbusd_epi32
#else
#define DOT_ADD _mm256_dpbusd_avx_epi32
#endif

typedef struct { /* Q8_0, as a file has it */
    uint16_t scale;
    int8_t q[BLOCK];
} q8_block;

typedef struct { /* the same of what the matrix is multiplied by, prepared */
    int8_t q[BLOCK];
    int32_t begin[LANES];
    float scale;
} hidden_block;

bool fz_matrix_knows(enum ggml_type type) {
    return type == GGML_TYPE_Q8_0 && ggml_row_size(type, BLOCK) == sizeof(q8_block);
}

size_t fz_matrix_room(int32_t n_embd) { return sizeof(hidden_block) * (size_t)(n_embd / BLOCK); }

void fz_matrix_prepare(const void *quantised, int32_t n_embd, void *prepared) {
    const q8_block *from = quantised;
    hidden_block *to = prepared;
    for (int32_t b = 0; b < n_embd / BLOCK; b++) {
        to[b].scale = _cvtsh_ss(from[b].scale);
        for (int32_t lane = 0; lane < LANES; lane++) {
            int32_t sum = 0;
            for (int32_t i = 4 * lane; i < 4 * lane + 4; i++) sum += to[b].q[i] = from[b].q[i];
            to[b].begin[lane] = -128 * sum;
        }
    }
}

static inline float sum_of(__m256 x) { /* in llama.cpp's order */
    __m128 four = _mm_add_ps(_mm256_extractf128_ps(x, 1), _mm256_castps256_ps128(x));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

/* A row of the matrix with `n` hidden rows, which is known where this is compiled. */
static inline __attribute__((always_inline)) void multiply_row(const q8_block *row, int32_t n_blocks, const hidden_block *hidden, const int32_t n, float *out) {
    const __m256i flip = _mm256_set1_epi8((char)0x80);
    __m256 sum[FZ_WHOLE];
    for (int32_t i = 0; i < n; i++) sum[i] = _mm256_setzero_ps();
    for (int32_t b = 0; b < n_blocks; b++) {
        if (b % 2 == 0) _mm_prefetch((const char *)(row + b) + AHEAD_BYTES, _MM_HINT_T0); /* beyond the end it does nothing */
        __m256i weights = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)row[b].q), flip);
        __m256 scale = _mm256_cvtph_ps(_mm_set1_epi16((short)row[b].scale));
        for (int32_t i = 0; i < n; i++) {
            const hidden_block *y = hidden + (size_t)i * (size_t)n_blocks + b;
            __m256i dot = DOT_ADD(_mm256_loadu_si256((const __m256i *)(const void *)y->begin), weights,
                                  _mm256_loadu_si256((const __m256i *)(const void *)y->q));
            sum[i] = _mm256_fmadd_ps(_mm256_mul_ps(scale, _mm256_set1_ps(y->scale)), _mm256_cvtepi32_ps(dot), sum[i]);
        }
    }
    for (int32_t i = 0; i < n; i++) out[i] = sum_of(sum[i]);
}

void fz_matrix_multiply(const void *matrix, int32_t token, int32_t n_embd, const void *prepared, int32_t n, float *out) {
    int32_t n_blocks = n_embd / BLOCK;
    const q8_block *row = (const q8_block *)matrix + (size_t)token * (size_t)n_blocks;
    switch (n) {
    case 1: multiply_row(row, n_blocks, prepared, 1, out); break;
    case 2: multiply_row(row, n_blocks, prepared, 2, out); break;
    case 3: multiply_row(row, n_blocks, prepared, 3, out); break;
    case 4: multiply_row(row, n_blocks, prepared, 4, out); break;
    case 5: multiply_row(row, n_blocks, prepared, 5, out); break;
    case 6: multiply_row(row, n_blocks, prepared, 6, out); break;
    case 7: multiply_row(row, n_blocks, prepared, 7, out); break;
    default: multiply_row(row, n_blocks, prepared, FZ_WHOLE, out);
    }
}
#else
bool fz_matrix_knows(enum ggml_type type) {
    (void)type;
    return false;
}
size_t fz_matrix_room(int32_t n_embd) { return (size_t)n_embd; }
void fz_matrix_prepare(const void *quantised, int32_t n_embd, void *prepared) { (void)quantised, (void)n_embd, (void)prepared; }
void fz_matrix_multiply(const void *matrix, int32_t token, int32_t n_embd, const void *prepared, int32_t n, float *out) {
    (void)matrix, (void)token, (void)n_embd, (void)prepared, (void)n, (void)out;
}
#endif
