/*
 * Restricted logits against llama.cpp's own, with real weights:
 *     rows_test MODEL TEXT STEPS [THREADS]  decodes the text of a file token by token; every hidden row and every logit
 *                                        that is compared must be the same, bit for bit
 *     rows_test --quantise FROM TO TYPE  makes weights of another type with llama.cpp's own quantiser
 * Prints a line; ends with 1 where something differs, with 2 where this model is computed whole (and why).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../gemma_internal.h"

static const struct { const char *name; enum llama_ftype type; } TYPES[] = {
    {"F16", LLAMA_FTYPE_MOSTLY_F16},       {"BF16", LLAMA_FTYPE_MOSTLY_BF16},   {"Q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},
    {"Q6_K", LLAMA_FTYPE_MOSTLY_Q6_K},     {"Q5_K_M", LLAMA_FTYPE_MOSTLY_Q5_K_M}, {"Q4_K_M", LLAMA_FTYPE_MOSTLY_Q4_K_M},
    {"Q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},     {"IQ4_NL", LLAMA_FTYPE_MOSTLY_IQ4_NL}, {"IQ4_XS", LLAMA_FTYPE_MOSTLY_IQ4_XS},
};

static int quantise(const char *from, const char *to, const char *name) {
    struct llama_model_quantize_params p = llama_model_quantize_default_params();
    for (size_t i = 0; i < sizeof TYPES / sizeof *TYPES; i++) {
        if (strcmp(TYPES[i].name, name) != 0) continue;
        p.ftype = TYPES[i].type;
        p.allow_requantize = true;
        p.nthread = 2;
        p.pure = true; /* the output matrix, too */
        return llama_model_quantize(from, to, &p) == 0 ? 0 : 1;
    }
    fprintf(stderr, "no such type: %s\n", name);
    return 3;
}

static char *whole_file(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    char *text = f ? malloc(1 << 20) : NULL;
    if (!text) exit(3);
    *len = fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    return text;
}

static bool decoded(fz_engine *e, int32_t token, int32_t pos) {
    e->batch.n_tokens = 0;
    fz_batch_put(e, token, pos, 0, true);
    return fz_rows_decode(e) == 0;
}

/* All logits by our own kernel, where there is one. */
static bool is_whole_same(fz_engine *e, int32_t token, int32_t pos, const float *theirs) {
    fz_rows *r = &e->rows;
    if (!(r->whole_sizes & 1)) return true;
    r->wanted = false;
    bool same = decoded(e, token, pos) && r->whole == 1 && memcmp(r->all, theirs, sizeof *theirs * (size_t)e->n_vocab) == 0;
    llama_memory_seq_rm(e->memory, 0, pos, -1);
    r->wanted = true;
    return same;
}

/* Several rows at once by our own kernel: each has the bits that it has alone. */
static bool are_rows_same(fz_engine *e, const int32_t *tokens, uint32_t *mask) {
    fz_rows *r = &e->rows;
    bool same = true;
    memset(mask, 0xff, sizeof *mask * (size_t)e->n_words);
    for (int32_t n = 2; n <= FZ_WHOLE && same; n++) {
        if (!(r->whole_sizes >> (n - 1) & 1)) continue;
        llama_memory_clear(e->memory, true);
        e->batch.n_tokens = 0;
        for (int32_t i = 0; i < n; i++) fz_batch_put(e, tokens[i], 0, i, true);
        same = fz_rows_decode(e) == 0 && r->whole == n;
        for (int32_t row = 0; row < n && same; row++) {
            const float *alone = fz_rows_logits(e, row, mask);
            same = memcmp(alone, r->all + (size_t)row * (size_t)e->n_vocab, sizeof *alone * (size_t)e->n_vocab) == 0;
        }
    }
    llama_memory_clear(e->memory, true);
    return same;
}

/* One step both ways; returns how many logits were compared, or -1 where something differs. */
static int64_t step(fz_engine *e, int32_t token, int32_t pos, uint32_t *seed, float *hidden, uint32_t *mask) {
    fz_rows *r = &e->rows;
    size_t size = sizeof *hidden * (size_t)r->n_embd;
    r->wanted = true;
    r->state = FZ_ROWS_CHECK; /* all of it, with the hidden row kept */
    if (!decoded(e, token, pos) || !r->taken) return -1;
    memcpy(hidden, r->hidden, size);
    const float *theirs = llama_get_logits_ith(e->ctx, 0);
    float *copy = malloc(sizeof *copy * (size_t)e->n_vocab);
    memcpy(copy, theirs, sizeof *copy * (size_t)e->n_vocab);
    llama_memory_seq_rm(e->memory, 0, pos, -1);
    r->state = FZ_ROWS_ON;
    bool good = is_whole_same(e, token, pos, copy);
    r->timing = true; /* ends early whatever the masks */
    good = good && decoded(e, token, pos) && r->taken && memcmp(hidden, r->hidden, size) == 0;
    r->timing = r->wanted = false;
    memset(mask, 0, sizeof *mask * (size_t)e->n_words);
    int32_t n = 1 << rand_r(seed) % 12; /* 1 to 2,048 tokens, and the likeliest */
    for (int32_t i = 0; i < n; i++) {
        int32_t t = (int32_t)((uint32_t)rand_r(seed) % (uint32_t)e->n_vocab);
        mask[t / 32] |= 1u << t % 32;
    }
    int32_t best = 0;
    for (int32_t t = 1; t < e->n_vocab; t++)
        if (copy[t] > copy[best]) best = t;
    mask[best / 32] |= 1u << best % 32;
    const float *ours = fz_rows_logits(e, 0, mask);
    int64_t compared = 0;
    for (int32_t t = 0; t < e->n_vocab; t++)
        if (mask[t / 32] >> t % 32 & 1) {
            compared++;
            good = good && memcmp(&ours[t], &copy[t], sizeof *ours) == 0;
        }
    free(copy);
    return good ? compared : -1;
}

int main(int argc, char **argv) {
    if (argc == 5 && strcmp(argv[1], "--quantise") == 0) return quantise(argv[2], argv[3], argv[4]);
    if (argc != 4 && argc != 5) return 3;
    fz_options o = {.n_ctx = 1024, .n_threads = argc == 5 ? atoi(argv[4]) : 2, .n_slots = FZ_WHOLE, .n_sessions = 4, .n_queue = 4};
    char err[200] = "";
    fz_engine *e = NULL;
    if (fz_open(argv[1], &o, &e, err, sizeof err) != FZ_OK) {
        fprintf(stderr, "%s\n", err);
        return 3;
    }
    if (e->rows.state != FZ_ROWS_ON) {
        printf("computed whole: %s\n", e->rows.why);
        fz_close(e);
        return 2;
    }
    size_t len;
    char *text = whole_file(argv[2], &len);
    int32_t *tokens = malloc(sizeof *tokens * (len + 2));
    int32_t n = llama_tokenize(e->vocab, text, (int32_t)len, tokens, (int32_t)len + 2, true, false), steps = atoi(argv[3]);
    float *hidden = malloc(sizeof *hidden * (size_t)e->rows.n_embd);
    uint32_t *mask = malloc(sizeof *mask * (size_t)e->n_words), seed = 1;
    int64_t all = 0, differ = !are_rows_same(e, tokens, mask);
    for (int32_t i = 0; i < steps && n > 0; i++) { /* the loop's thread waits: nobody submits */
        int32_t pos = i % 512;
        if (pos == 0) llama_memory_clear(e->memory, true);
        int64_t compared = step(e, tokens[i % n], pos, &seed, hidden, mask);
        if (compared < 0) differ++;
        else all += compared;
        if ((i + 1) % 1000 == 0) fprintf(stderr, "%d of %d steps, %lld differ\n", i + 1, steps, (long long)differ);
    }
    printf("%d steps, %lld logits%s, %lld steps differ\n", steps, (long long)all, e->rows.whole_sizes ? " and all by our own kernel" : "",
           (long long)differ);
    free(mask);
    free(hidden);
    free(tokens);
    free(text);
    fz_close(e);
    return differ || n <= 0 ? 1 : 0;
}
