/*
 * Logits of the tokens that may be said, and of no others. Most of a decode is the output matrix, a row for each token of
 * the vocabulary, and a grammar mostly allows few of them. llama.cpp asks a callback after each operation: where every row
 * of a batch has its mask by the time the layers are done, and together they allow few tokens, the graph ends there, and
 * only the rows of these tokens are multiplied, by the very kernel that llama.cpp takes for one row. Whether that gives
 * the same logits, bit for bit, is looked at with the model that is loaded; where it does not, all is as it was.
 *
 * Where the masks allow much, or there is none, the graph ends there as well if gemma_matrix.c has a kernel for the matrix
 * that is quicker than llama.cpp's and gives the same bits.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "gemma_internal.h"

/* Several threads pay from so many rows on; without measurements, so many tokens are few; and more than MOST never are,
 * for rows that are not in the memory's order cost several times as much, and a start on a busy machine measures anything. */
enum { REPEATS = 5, WIDEST = FZ_WHOLE, MANY = 256, UNMEASURED = 1024, MOST = 8192, UNMEASURED_US = 2000, MEASURE_US = 300000 };

static const char LAST_LAYER[] = "result_norm", LOGITS[] = "result_output";

static bool refuse(fz_rows *r, const char *why) {
    r->state = FZ_ROWS_OFF;
    r->limit = 0;
    r->why = why;
    return false;
}

/* --- what the graph does behind the layers ---------------------------------------------------------------- */

static bool is_known_step(const struct ggml_tensor *t) {
    return t->op == GGML_OP_SCALE || (t->op == GGML_OP_UNARY && ggml_get_unary_op(t) == GGML_UNARY_OP_TANH);
}

/* Looks at an operation behind the layers: the matrix, then at most a few steps for each logit alone. */
static void learn(fz_rows *r, const struct ggml_tensor *t) {
    if (!r->matrix) {
        if (t->op != GGML_OP_MUL_MAT || t->src[1] != r->norm) {
            refuse(r, "the model's graph has something between its last layer and the output matrix");
            return;
        }
        r->matrix = t->src[0];
    } else if (!is_known_step(t) || t->src[0] != r->last || r->n_steps == FZ_STEPS) {
        refuse(r, "the model's graph does something unknown with its logits");
        return;
    } else {
        fz_step *step = &r->steps[r->n_steps++];
        step->tanh = t->op == GGML_OP_UNARY;
        memcpy(&step->scale, t->op_params, sizeof step->scale);
        memcpy(&step->bias, t->op_params + 1, sizeof step->bias);
    }
    r->last = t;
    if (strcmp(t->name, LOGITS) == 0) r->state = FZ_ROWS_CHECK;
}

static bool is_here(const struct ggml_tensor *t) {
    const struct ggml_tensor *owner = t->view_src ? t->view_src : t;
    return t->data && owner->buffer && ggml_backend_buffer_is_host(owner->buffer);
}

/* Whether the matrix can be read row by row; prepares for it. */
static bool prepare(fz_rows *r, int32_t n_vocab, bool gpu) {
    const struct ggml_tensor *m = r->matrix;
    if (!m) return refuse(r, "the model's graph has no output matrix that could be found");
    if (!is_here(m)) return refuse(r, gpu ? "the output matrix is not in the memory of the CPU" : "the output matrix is repacked for kernels of llama.cpp's own");
    if (m->ne[1] != n_vocab || m->ne[2] != 1 || m->ne[3] != 1 || m->nb[1] != ggml_row_size(m->type, m->ne[0]))
        return refuse(r, "the output matrix has another shape than a row for each token");
    const struct ggml_type_traits_cpu *way = ggml_get_type_traits_cpu(m->type);
    if (!way || !way->vec_dot) return refuse(r, "there is no kernel for one row of the output matrix");
    const struct ggml_type_traits_cpu *of = ggml_get_type_traits_cpu(way->vec_dot_type);
    r->quantise = way->vec_dot_type == GGML_TYPE_F32 ? NULL : of ? of->from_float : NULL;
    if (!r->quantise && way->vec_dot_type != GGML_TYPE_F32)
        return refuse(r, "there is no kernel for one row of the output matrix");
    r->dot = way->vec_dot;
    r->n_embd = (int32_t)m->ne[0];
    if (fz_matrix_knows(m->type) && way->vec_dot_type == m->type) {
        r->prepared = malloc(FZ_WHOLE * fz_matrix_room(r->n_embd));
        r->all = malloc(sizeof *r->all * FZ_WHOLE * (size_t)n_vocab);
    }
    r->row_bytes = m->nb[1];
    size_t one = ggml_row_size(way->vec_dot_type, r->n_embd);
    r->hidden = malloc(sizeof *r->hidden * (size_t)r->n_embd * FZ_MAX_LANES);
    r->other = malloc(one > sizeof(float) * (size_t)r->n_embd ? one : sizeof(float) * (size_t)r->n_embd);
    r->tokens = malloc(sizeof *r->tokens * (size_t)n_vocab);
    r->logits = calloc((size_t)n_vocab, sizeof *r->logits);
    if (!r->hidden || !r->other || !r->tokens || !r->logits) return refuse(r, "no memory for it");
    return true;
}

/* --- rows ------------------------------------------------------------------------------------------------ */

static float after_steps(const fz_rows *r, float x) {
    for (int32_t i = 0; i < r->n_steps; i++) {
        const fz_step *step = &r->steps[i];
        if (step->tanh) x = tanhf(x);
        else x = step->bias == 0 ? x * step->scale : x * step->scale + step->bias;
    }
    return x;
}

static void multiply(const fz_rows *r, const void *y, int32_t n, int32_t threads) {
    const char *matrix = r->matrix->data;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for schedule(static) num_threads(threads) if (n >= MANY && threads > 1)
#endif
    for (int32_t i = 0; i < n; i++) {
        int32_t token = r->tokens[i];
        float x;
        r->dot(r->n_embd, &x, 0, matrix + r->row_bytes * (size_t)token, 0, y, 0, 1);
        r->logits[token] = after_steps(r, x);
    }
}

/* The logits of the first `n` of r->tokens, from the hidden row `index` of the decode. */
static void compute(fz_rows *r, int32_t index, int32_t n, int32_t threads) {
    const float *hidden = r->hidden + (size_t)index * (size_t)r->n_embd;
    if (r->quantise) r->quantise(hidden, r->other, r->n_embd);
    multiply(r, r->quantise ? r->other : (const void *)hidden, n, threads);
    r->computed += n;
}

static void prepare_hidden(fz_rows *r, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        r->quantise(r->hidden + (size_t)i * (size_t)r->n_embd, r->other, r->n_embd);
        fz_matrix_prepare(r->other, r->n_embd, (char *)r->prepared + (size_t)i * fz_matrix_room(r->n_embd));
    }
}

/* All logits of the first `n` hidden rows of the decode, in r->all. */
static void compute_all(fz_rows *r, int32_t n, int32_t n_vocab, int32_t threads) {
    (void)threads;
    prepare_hidden(r, n);
#ifdef _OPENMP
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
#endif
    for (int32_t token = 0; token < n_vocab; token++) {
        float x[FZ_WHOLE];
        fz_matrix_multiply(r->matrix->data, token, r->n_embd, r->prepared, n, x);
        for (int32_t i = 0; i < n; i++) r->all[(size_t)i * (size_t)n_vocab + (size_t)token] = after_steps(r, x[i]);
    }
}

int32_t fz_rows_decode(fz_engine *e) {
    fz_rows *r = &e->rows;
    r->taken = false;
    r->whole = 0;
    int32_t code = llama_decode(e->ctx, e->batch);
    if (code != 0) return code;
    llama_synchronize(e->ctx);
    if (r->whole) compute_all(r, r->whole, e->n_vocab, e->stats.n_threads);
    return 0;
}

float *fz_rows_all(fz_engine *e, int32_t row, int32_t output) {
    if (e->rows.whole) return e->rows.all + (size_t)output * (size_t)e->n_vocab;
    return llama_get_logits_ith(e->ctx, row);
}

float *fz_rows_logits(fz_engine *e, int32_t index, const uint32_t *mask) {
    fz_rows *r = &e->rows;
    int32_t n = 0;
    for (int32_t w = 0; w < e->n_words; w++)
        for (uint32_t bits = mask[w]; bits; bits &= bits - 1) {
            int32_t token = w * 32 + __builtin_ctz(bits);
            if (token < e->n_vocab) r->tokens[n++] = token;
        }
    compute(r, index, n, e->stats.n_threads);
    return r->logits;
}

/* --- within a decode ------------------------------------------------------------------------------------- */

int32_t fz_rows_allowed(const fz_engine *e, const uint32_t *mask) {
    int32_t n = 0;
    for (int32_t w = 0; w < e->n_words; w++) n += __builtin_popcount(mask[w]);
    return n;
}

/* Locked. Whether all masks of the batch are there, within the time that the output matrix would take, and where others
 * wait within what they would not notice; and whether they allow so few tokens that their rows cost less than the matrix. */
static bool few_allowed(fz_engine *e) {
    int64_t from = fz_now_us();
    for (int32_t i = 0; i < e->n_running; i++) {
        fz_session *s = e->running[i];
        while (s->row >= 0 && s->mask != FZ_M_READY && !s->abort && !s->closing && !e->closed) {
            bool others = (e->n_running > 1 || e->n_queued > 0) && e->rows.saves_us > FZ_MASK_SOON_US; /* who came meanwhile, too */
            if (!fz_wait_until(e, from + (others ? FZ_MASK_SOON_US : e->rows.saves_us))) return false;
        }
    }
    int64_t rows = 0;
    for (int32_t i = 0; i < e->n_running; i++) {
        const fz_session *s = e->running[i];
        if (s->row >= 0 && s->mask == FZ_M_READY && s->mask_code == FZ_OK) rows += fz_rows_allowed(e, s->bits);
    }
    return rows <= e->rows.limit;
}

static bool keep_hidden(fz_rows *r, const struct ggml_tensor *t) {
    if (t->type != GGML_TYPE_F32 || t->ne[0] != r->n_embd || t->ne[1] > FZ_MAX_LANES || !is_here(t) || !ggml_is_contiguous(t))
        return false;
    memcpy(r->hidden, t->data, sizeof *r->hidden * (size_t)(t->ne[0] * t->ne[1]));
    return true;
}

/* The rows of a decode with so many, where our own kernel is to compute all their logits; else 0. */
static int32_t whole_rows(const fz_rows *r, int64_t rows) {
    return rows > 0 && rows <= FZ_WHOLE && r->whole_sizes >> (rows - 1) & 1 ? (int32_t)rows : 0;
}

bool fz_rows_on_node(struct ggml_tensor *t, bool ask, void *engine) {
    fz_engine *e = engine;
    fz_rows *r = &e->rows;
    if (r->state == FZ_ROWS_OFF) return false;
    bool here = strcmp(t->name, LAST_LAYER) == 0;
    if (r->state == FZ_ROWS_LEARN) {
        if (here) r->norm = t;
        else if (ask && r->norm) learn(r, t);
        return here && !ask;
    }
    int32_t whole = here && r->state == FZ_ROWS_ON ? whole_rows(r, t->ne[1]) : 0;
    if (!here || !(r->wanted || whole > 0)) return false;
    if (ask) return true;
    if (r->state == FZ_ROWS_CHECK) {
        r->taken = keep_hidden(r, t);
        return true;
    }
    bool few = r->timing;
    if (r->wanted && !few) {
        pthread_mutex_lock(&e->lock);
        few = few_allowed(e);
        pthread_mutex_unlock(&e->lock);
    }
    if ((few || whole > 0) && keep_hidden(r, t)) {
        r->taken = few;
        r->whole = few ? 0 : whole;
    }
    return !r->taken && !r->whole; /* false ends the graph */
}

/* --- at the start ---------------------------------------------------------------------------------------- */

static const char TEXT[] = "The firewall keeps a state for each connection that it lets through, and drops what belongs "
                           "to none: \"wan\", 192.0.2.17/24, {\"action\": \"block\"}.";

/* Decodes a token of the text at place `at` in each of `width` sequences, which are behind those of the slots. */
static bool step(fz_engine *e, const int32_t *text, int32_t at, int32_t width) {
    e->batch.n_tokens = 0;
    for (int32_t i = 0; i < width; i++) fz_batch_put(e, text[at + i], at, e->opt.n_slots + i, true);
    e->rows.taken = false;
    return llama_decode(e->ctx, e->batch) == 0;
}

static void forget(fz_engine *e, int32_t width) {
    for (int32_t i = 0; i < width; i++) llama_memory_seq_rm(e->memory, e->opt.n_slots + i, -1, -1);
}

/* The greatest difference between llama.cpp's logits and ours, of every `stride`-th token. */
static float difference(fz_engine *e, int32_t row, int32_t stride) {
    fz_rows *r = &e->rows;
    const float *theirs = llama_get_logits_ith(e->ctx, row);
    float most = 0;
    int32_t n = 0;
    for (int32_t token = row % stride; token < e->n_vocab; token += stride) r->tokens[n++] = token;
    compute(r, row, n, e->stats.n_threads);
    for (int32_t i = 0; i < n; i++) {
        float d = fabsf(theirs[r->tokens[i]] - r->logits[r->tokens[i]]);
        if (!(d <= most)) most = d; /* a NaN, too */
    }
    return most;
}

/* Whether our own kernel gives the bits of llama.cpp's for every `stride`-th token of the first `n` rows of the decode. */
static bool is_same(fz_engine *e, int32_t n, int32_t stride) {
    fz_rows *r = &e->rows;
    prepare_hidden(r, n);
    for (int32_t row = 0; row < n; row++) {
        int32_t count = 0;
        for (int32_t token = row; token < e->n_vocab; token += stride) r->tokens[count++] = token;
        compute(r, row, count, e->stats.n_threads);
        for (int32_t i = 0; i < count; i++) {
            float x[FZ_WHOLE];
            fz_matrix_multiply(r->matrix->data, r->tokens[i], r->n_embd, r->prepared, n, x);
            float ours = after_steps(r, x[row]);
            if (memcmp(&ours, &r->logits[r->tokens[i]], sizeof ours) != 0) return false;
        }
    }
    return true;
}

/* Real text, token by token: the same bits. Then several sequences at once, for which llama.cpp may take another kernel
 * that adds in another order: nearly the same. */
static bool check(fz_engine *e) {
    enum { STEPS = 8, STRIDE = 61, WIDE_STRIDE = 1021 };
    fz_rows *r = &e->rows;
    int32_t text[sizeof TEXT + 1], n = llama_tokenize(e->vocab, TEXT, (int32_t)sizeof TEXT - 1, text, sizeof TEXT + 1, true, false);
    bool known = r->prepared && r->all;
    if (n < STEPS + WIDEST) return refuse(r, "the model's vocabulary makes too few tokens of the text it is tried with");
    r->wanted = true;
    for (int32_t at = 0; at < STEPS; at++) {
        if (!step(e, text, at, 1)) return refuse(r, "llama.cpp could not decode the text it is tried with");
        if (!r->taken) return refuse(r, "the last layer's output is not where it could be read");
        if (difference(e, 0, at == 0 ? 1 : STRIDE) != 0) return refuse(r, "its logits differ from llama.cpp's in their bits");
        known = known && is_same(e, 1, at == 0 ? 1 : STRIDE);
    }
    forget(e, 1);
    int32_t width = e->opt.n_slots < WIDEST ? e->opt.n_slots : WIDEST;
    for (int32_t at = 0; at < 2; at++) {
        if (!step(e, text, at, width)) return refuse(r, "llama.cpp could not decode the text it is tried with");
        for (int32_t row = 0; row < width; row++)
            if (!r->taken || !(difference(e, row, STRIDE) <= 1e-3f))
                return refuse(r, "its logits of several sequences differ from llama.cpp's");
        for (int32_t n = 2; n <= FZ_WHOLE && n <= width; n++) known = known && is_same(e, n, WIDE_STRIDE);
    }
    r->computed = 0;
    r->whole_sizes = known ? (1u << width) - 1 : 0; /* all up to the width */
    return true;
}

void fz_rows_open(fz_engine *e) {
    fz_rows *r = &e->rows;
    if (e->opt.full_logits) {
        refuse(r, "it was asked for");
        return;
    }
    int32_t first = llama_vocab_bos(e->vocab);
    r->state = FZ_ROWS_LEARN;
    if (step(e, &(int32_t){first < 0 ? 0 : first}, 0, 1) && r->state == FZ_ROWS_LEARN)
        refuse(r, "the model's graph does not say where its layers end");
    else if (r->state == FZ_ROWS_LEARN)
        refuse(r, "llama.cpp could not decode the text it is tried with");
    forget(e, 1);
    if (r->state == FZ_ROWS_CHECK && prepare(r, e->n_vocab, e->opt.n_gpu_layers != 0) && check(e)) {
        r->state = FZ_ROWS_ON;
        r->limit = e->n_vocab / 4 < UNMEASURED ? e->n_vocab / 4 : UNMEASURED;
        r->saves_us = UNMEASURED_US;
        r->why = "";
    }
    r->wanted = false;
    forget(e, WIDEST);
}

void fz_rows_close(fz_engine *e) {
    free(e->rows.hidden);
    free(e->rows.other);
    free(e->rows.tokens);
    free(e->rows.logits);
    free(e->rows.prepared);
    free(e->rows.all);
}

/* How many rows cost as much as what ending the graph saves; a quarter of it is left, for the rest of the work. Few rows
 * always cost less: they are a part of the matrix. */
static void measure_few(fz_engine *e) {
    enum { ROWS = 2048 };
    fz_rows *r = &e->rows;
    int32_t n = e->n_vocab < ROWS ? e->n_vocab : ROWS;
    int64_t least = INT64_MAX, saves_us = e->stats.costs.us[0] - e->stats.short_costs.us[0];
    for (int32_t turn = 0; turn < REPEATS; turn++) {
        for (int32_t i = 0; i < n; i++) r->tokens[i] = (int32_t)(((int64_t)i * 7919 + turn * 127) % e->n_vocab);
        int64_t from = fz_now_us();
        compute(r, 0, n, e->stats.n_threads);
        int64_t took = fz_now_us() - from;
        if (took < least) least = took;
    }
    r->computed = 0;
    if (saves_us > r->saves_us) r->saves_us = saves_us;
    int64_t limit = r->saves_us * 3 / 4 * n / (least > 0 ? least : 1);
    if (limit > r->limit) r->limit = limit > MOST ? MOST : (int32_t)limit; /* else: a busy machine says nothing */
}

/* For which numbers of rows our own kernel gives all logits sooner than llama.cpp's. What whole decodes cost is then known
 * anew. */
static void measure_whole(fz_engine *e, uint32_t sizes) {
    fz_rows *r = &e->rows;
    fz_costs *costs = &e->stats.costs;
    int64_t least[FZ_WHOLE], until = fz_now_us() + MEASURE_US;
    int32_t most = costs->n < FZ_WHOLE ? costs->n : FZ_WHOLE;
    for (int32_t turn = 0; turn < REPEATS; turn++)
        for (int32_t n = 1; n <= most && sizes >> (n - 1) & 1; n++) {
            int64_t from = fz_now_us();
            if (turn > 0 && from >= until) break;
            compute_all(r, n, e->n_vocab, e->stats.n_threads);
            int64_t took = fz_now_us() - from;
            if (turn == 0 || took < least[n - 1]) least[n - 1] = took;
        }
    for (int32_t n = 1; n <= most && sizes >> (n - 1) & 1; n++) {
        int64_t all = e->stats.short_costs.us[n - 1] + least[n - 1];
        if (all >= costs->us[n - 1]) continue;
        costs->us[n - 1] = all;
        r->whole_sizes |= 1u << (n - 1);
    }
    fz_plan_from(costs, costs->n);
}

void fz_rows_measure(fz_engine *e, uint32_t sizes) {
    if (e->rows.state != FZ_ROWS_ON) return;
    measure_whole(e, sizes); /* first: what few rows save is what all of them take */
    measure_few(e);
}
