/*
 * The few llama_* functions that the bridge calls, over a cache that remembers tokens. The next token is a hash of the
 * whole sequence in the cache, so a bridge that reuses a wrong beginning, loses a token or mixes two sequences up
 * generates something else than a fresh run.
 */
#include "stub_llama.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "llama.h"

enum { SEQS = 128, LONGEST = 8192, ROWS = 512, SCRIPTS = 16, LOGGED = 8192 };

struct llama_model { int unused; };
struct llama_context {
    struct llama_context_params params;
    float *logits, *hidden;
    int32_t row_of[ROWS];
};
struct seq { int32_t tok[LONGEST]; int32_t n; };

static struct llama_model the_model;
static struct seq seqs[SEQS];
static const char *scripts[SCRIPTS];
static const float *_Atomic chain;
static _Atomic int32_t cells, hold, held_now, begun, decode_us, busy_us, fail_next, widest, longest, tokens_seen, misuse, no_model, no_state, states, graph, shorts, most;

static void forget_all(void) {
    for (int s = 0; s < SEQS; s++) seqs[s].n = 0;
}

static _Atomic int32_t allowed, waits, done;
static uint16_t took[LOGGED][26];           /* written by the loop before `done` counts the decode */

void stub_reset(void) {
    memset(took, 0, sizeof took);
    allowed = -1;
    waits = done = 0;
    forget_all();
    memset(scripts, 0, sizeof scripts);
    chain = NULL;
    cells = 1 << 20;
    hold = held_now = begun = decode_us = busy_us = fail_next = widest = longest = tokens_seen = misuse = no_model = no_state = states = graph = shorts = most = 0;
}
void stub_cells(int32_t n) { cells = n; }
void stub_decode_us(int32_t us) { decode_us = us; }
void stub_busy_us(int32_t us) { busy_us = us; }
void stub_room(int32_t n) { most = n; }
void stub_allow(int32_t n) { allowed = n; }
bool stub_waits(void) { return allowed == 0 && waits; }
int32_t stub_decodes(void) { return done; }
int32_t stub_took(int32_t decode, char first) { return decode < done && decode < LOGGED ? took[decode][first - 'A'] : 0; }
void stub_fail_next(int32_t code) { fail_next = code; }
void stub_hold(int32_t n) { hold = n; }
int32_t stub_held(void) { return held_now; }
int32_t stub_begun(void) { return begun; }
void stub_chain(const float *logits) { chain = logits; }
void stub_script(int32_t n, const char *bytes) { scripts[n] = bytes; }
int32_t stub_widest(void) { return widest; }
int32_t stub_longest(void) { return longest; }
int32_t stub_tokens(void) { return tokens_seen; }
int32_t stub_misuse(void) { return misuse; }
void stub_graph(enum stub_graph g) { graph = (int32_t)g; }
int32_t stub_short(void) { return shorts; }
void stub_no_model(int32_t on) { no_model = on; }
void stub_no_state(int32_t how) { no_state = how; }
int32_t stub_states(void) { return states; }

int32_t stub_next(const int32_t *tokens, int32_t n) {
    for (int32_t i = n - 1; i >= 0; i--) {
        if (tokens[i] < STUB_SCRIPT || tokens[i] >= STUB_SCRIPT + SCRIPTS || !scripts[tokens[i] - STUB_SCRIPT]) continue;
        const char *s = scripts[tokens[i] - STUB_SCRIPT];
        size_t at = (size_t)(n - 1 - i);
        return at < strlen(s) ? (unsigned char)s[at] : STUB_EOG;
    }
    uint32_t hash = 2166136261u;
    for (int32_t i = 0; i < n; i++) hash = (hash ^ (uint32_t)tokens[i]) * 16777619u;
    return 'a' + (int32_t)(hash >> 8) % 26;
}

static _Atomic int32_t other;
void stub_other_release(int32_t on) { other = on; }
const char *llama_version(void) { return other == 1 ? "another" : FZ_LLAMA_VERSION; }
const char *ggml_commit(void) { return other == 2 ? "another" : FZ_GGML_COMMIT; }
void llama_log_set(ggml_log_callback f, void *data) { (void)f; (void)data; }
void llama_backend_init(void) {}
struct llama_model_params llama_model_default_params(void) { return (struct llama_model_params){0}; }
struct llama_context_params llama_context_default_params(void) { return (struct llama_context_params){0}; }
struct llama_model *llama_model_load_from_file(const char *path, struct llama_model_params p) {
    (void)path;
    (void)p;
    return no_model == 1 ? NULL : &the_model;
}
void llama_model_free(struct llama_model *m) { (void)m; }
const struct llama_vocab *llama_model_get_vocab(const struct llama_model *m) { return (const struct llama_vocab *)m; }
int32_t llama_vocab_n_tokens(const struct llama_vocab *v) { (void)v; return STUB_VOCAB; }
int32_t llama_model_n_ctx_train(const struct llama_model *m) { (void)m; return 4096; }
uint64_t llama_model_size(const struct llama_model *m) { (void)m; return 1000; }
const llama_token *llama_vocab_get_suppress_tokens(const struct llama_vocab *v, int32_t *n) {
    (void)v;
    *n = 0;
    return NULL;
}
int32_t llama_model_meta_val_str(const struct llama_model *m, const char *key, char *buf, size_t cap) {
    (void)m;
    if (strcmp(key, "general.name") != 0) return -1;
    if (cap) strncpy(buf, "stub", cap);
    return 4;
}
llama_token llama_vocab_bos(const struct llama_vocab *v) { (void)v; return STUB_CONTROL; }
llama_token llama_vocab_eos(const struct llama_vocab *v) { (void)v; return STUB_EOG; }
bool llama_vocab_is_eog(const struct llama_vocab *v, llama_token t) { (void)v; return t == STUB_EOG; }
enum llama_token_attr llama_vocab_get_attr(const struct llama_vocab *v, llama_token t) {
    (void)v;
    return t == STUB_EOG || t == STUB_CONTROL ? LLAMA_TOKEN_ATTR_CONTROL : LLAMA_TOKEN_ATTR_NORMAL;
}
int32_t llama_tokenize(const struct llama_vocab *v, const char *text, int32_t len, llama_token *out, int32_t cap,
                       bool bos, bool special) {
    (void)v;
    (void)special;
    int32_t n = len + bos;
    if (n > cap) return -n;
    if (bos) out[0] = STUB_CONTROL;
    for (int32_t i = 0; i < len; i++) out[i + bos] = (unsigned char)text[i];
    return n;
}
int32_t llama_token_to_piece(const struct llama_vocab *v, llama_token t, char *buf, int32_t cap, int32_t lstrip,
                             bool special) {
    (void)v;
    (void)lstrip;
    if (t >= 256 && t != STUB_PAIR) {
        if (!special) return 0;
        if (cap < 3) return -3;
        memcpy(buf, "<x>", 3);
        return 3;
    }
    int32_t n = t == STUB_PAIR ? 2 : 1;
    if (cap < n) return -n;
    memcpy(buf, t == STUB_PAIR ? "ab" : &(char){(char)t}, (size_t)n);
    return n;
}

struct llama_context *llama_init_from_model(struct llama_model *m, struct llama_context_params p) {
    (void)m;
    if (no_model == 2) return NULL;
    struct llama_context *c = calloc(1, sizeof *c);
    c->params = p;
    c->logits = malloc(sizeof *c->logits * STUB_VOCAB * p.n_outputs_max);
    c->hidden = malloc(sizeof *c->hidden * STUB_VOCAB * p.n_outputs_max);
    if ((int32_t)p.n_ctx < cells) cells = (int32_t)p.n_ctx;
    return c;
}
void llama_free(struct llama_context *c) {
    free(c->logits);
    free(c->hidden);
    free(c);
}
llama_memory_t llama_get_memory(const struct llama_context *c) { (void)c; return (llama_memory_t)seqs; }
struct llama_batch llama_batch_init(int32_t n, int32_t embd, int32_t n_seq) {
    (void)embd;
    (void)n_seq;
    struct llama_batch b = {0};
    size_t count = (size_t)n;
    b.token = calloc(count, sizeof *b.token);
    b.pos = calloc(count, sizeof *b.pos);
    b.n_seq_id = calloc(count, sizeof *b.n_seq_id);
    b.logits = calloc(count, sizeof *b.logits);
    b.seq_id = calloc(count, sizeof *b.seq_id);
    llama_seq_id *ids = calloc(count, sizeof *ids);
    for (size_t i = 0; i < count; i++) b.seq_id[i] = ids + i;
    return b;
}
void llama_batch_free(struct llama_batch b) {
    free(b.seq_id[0]);
    free(b.seq_id);
    free(b.token);
    free(b.pos);
    free(b.n_seq_id);
    free(b.logits);
}
void llama_memory_clear(llama_memory_t m, bool data) {
    (void)m;
    (void)data;
    forget_all();
}
bool llama_memory_seq_rm(llama_memory_t m, llama_seq_id s, llama_pos from, llama_pos to) {
    (void)m;
    if (to != -1 || s < 0) misuse++;
    if (from < 0) from = 0;
    if (seqs[s].n > from) seqs[s].n = from;
    return true;
}
void llama_memory_seq_cp(llama_memory_t m, llama_seq_id from, llama_seq_id to, llama_pos p0, llama_pos p1) {
    (void)m;
    if (p0 != 0 || seqs[to].n != 0 || p1 > seqs[from].n) misuse++;
    memcpy(seqs[to].tok, seqs[from].tok, sizeof *seqs[to].tok * (size_t)p1);
    seqs[to].n = p1;
}
/* Cells that are held; those of a common beginning count once, as in a unified cache. */
static int32_t held(void) {
    int32_t all = 0;
    if (cells >= 2048) return 0; /* the tests of eviction have fewer; it is slow */
    for (int s = 0; s < SEQS; s++) {
        int32_t shared = 0;
        for (int o = 0; o < s; o++) {
            int32_t n = 0;
            while (n < seqs[s].n && n < seqs[o].n && seqs[s].tok[n] == seqs[o].tok[n]) n++;
            if (n > shared) shared = n;
        }
        all += seqs[s].n - shared;
    }
    return all;
}

size_t llama_state_seq_get_size(struct llama_context *c, llama_seq_id s) {
    (void)c;
    return no_state == 1 ? 0 : sizeof(int32_t) * (size_t)(seqs[s].n + 1);
}
size_t llama_state_seq_get_data(struct llama_context *c, uint8_t *to, size_t size, llama_seq_id s) {
    if (size < llama_state_seq_get_size(c, s)) misuse++;
    if (no_state == 2) return 0;
    memcpy(to, &seqs[s].n, sizeof(int32_t));
    memcpy(to + sizeof(int32_t), seqs[s].tok, sizeof(int32_t) * (size_t)seqs[s].n);
    states++;
    return sizeof(int32_t) * (size_t)(seqs[s].n + 1);
}
size_t llama_state_seq_set_data(struct llama_context *c, const uint8_t *from, size_t size, llama_seq_id s) {
    (void)c;
    int32_t n;
    memcpy(&n, from, sizeof n);
    if (seqs[s].n != 0 || size != sizeof n * (size_t)(n + 1)) misuse++;
    if (no_state == 3 || held() + n > cells) return 0;
    memcpy(seqs[s].tok, from + sizeof n, sizeof n * (size_t)n);
    seqs[s].n = n;
    return size;
}
void llama_set_n_threads(struct llama_context *c, int32_t n, int32_t n_batch) {
    if (n < 1 || n != n_batch) misuse++;
    c->params.n_threads = n;
}
void llama_synchronize(struct llama_context *c) { (void)c; }

/* Whether the decode may go on: it was allowed, and not aborted. */
static bool may_decode(struct llama_context *c) {
    waits = 1;
    while (allowed == 0) {
        if (c->params.abort_callback && c->params.abort_callback(c->params.abort_callback_data)) {
            waits = 0;
            return false;
        }
        struct timespec t = {.tv_nsec = 20000};
        nanosleep(&t, NULL);
    }
    waits = 0;
    if (allowed > 0) allowed--;
    return true;
}

static bool takes_time(struct llama_context *c, int32_t n_tokens) {
    int32_t us = c->params.n_threads > 1 && busy_us ? busy_us : decode_us;
    bool is_held = hold && n_tokens >= hold;
    held_now += is_held;
    for (int32_t left = us; left > 0 || (is_held && hold); left -= left > 0 ? 100 : 0) {
        if (c->params.abort_callback && c->params.abort_callback(c->params.abort_callback_data)) return false;
        struct timespec t = {.tv_nsec = 100000};
        nanosleep(&t, NULL);
    }
    return true;
}

/* --- the graph: what the layers give is the logits already, and the output matrix is one of ones on its diagonal. */

static float matrix_data[STUB_VOCAB * STUB_VOCAB];
static const float CAP = 30.0f;

static void dot(int n, float *s, size_t bs, const void *x, size_t bx, const void *y, size_t by, int nrc) {
    const float *a = x, *b = y;
    float sum = 0;
    (void)bs;
    (void)bx;
    (void)by;
    if (nrc != 1) misuse++;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    *s = graph == STUB_INEXACT ? sum * 1.0001f : sum;
}
const struct ggml_type_traits_cpu *ggml_get_type_traits_cpu(enum ggml_type type) {
    static const struct ggml_type_traits_cpu of_floats = {.vec_dot = dot, .vec_dot_type = GGML_TYPE_F32};
    if (type != GGML_TYPE_F32) misuse++;
    return &of_floats;
}
size_t ggml_row_size(enum ggml_type type, int64_t n) { return type == GGML_TYPE_F32 ? sizeof(float) * (size_t)n : 0; }
bool ggml_is_contiguous(const struct ggml_tensor *t) { (void)t; return graph != STUB_HIDDEN; }
bool ggml_backend_buffer_is_host(ggml_backend_buffer_t b) { return b != (ggml_backend_buffer_t)(uintptr_t)2; }
enum ggml_unary_op ggml_get_unary_op(const struct ggml_tensor *t) { return (enum ggml_unary_op)t->op_params[0]; }

static struct ggml_tensor tensor(const char *name, enum ggml_op op, struct ggml_tensor *a, struct ggml_tensor *b, int64_t rows, float *data) {
    struct ggml_tensor t = {.type = GGML_TYPE_F32, .op = op, .src = {a, b}, .data = data, .ne = {STUB_VOCAB, rows, 1, 1}};
    t.buffer = (ggml_backend_buffer_t)(uintptr_t)1;
    t.nb[0] = sizeof(float);
    t.nb[1] = sizeof(float) * STUB_VOCAB;
    strncpy(t.name, name, sizeof t.name - 1);
    return t;
}

static void scaled(struct ggml_tensor *t, float by) { memcpy(t->op_params, &by, sizeof by); }

/* As ggml's scheduler: asks of each node whether it is wanted, computes up to it, tells, and ends where it is told to. */
static void compute_graph(struct llama_context *c, int32_t rows) {
    bool capped = graph == STUB_CAPPED;
    for (int32_t i = 0; i < STUB_VOCAB; i++) matrix_data[i * STUB_VOCAB + i] = 1;
    static struct ggml_tensor matrix; /* it lives as long as the model */
    matrix = tensor("output.weight", GGML_OP_NONE, NULL, NULL, STUB_VOCAB, matrix_data);
    if (graph == STUB_ELSEWHERE) matrix.buffer = (ggml_backend_buffer_t)(uintptr_t)2;
    struct ggml_tensor norm = tensor(graph == STUB_NAMELESS ? "norm" : "result_norm", GGML_OP_MUL, NULL, NULL, rows, c->hidden);
    struct ggml_tensor between = tensor("between", GGML_OP_SCALE, &norm, NULL, rows, c->hidden);
    struct ggml_tensor product = tensor("product", GGML_OP_MUL_MAT, &matrix, graph == STUB_BETWEEN ? &between : &norm, rows, c->logits);
    struct ggml_tensor small = tensor("small", GGML_OP_SCALE, &product, NULL, rows, c->logits);
    struct ggml_tensor bent = tensor("bent", GGML_OP_UNARY, &small, NULL, rows, c->logits);
    struct ggml_tensor large = tensor("large", GGML_OP_SCALE, &bent, NULL, rows, c->logits);
    struct ggml_tensor after = tensor("after", GGML_OP_ADD, &product, &norm, rows, c->logits);
    scaled(&small, 1.0f / CAP);
    bent.op_params[0] = GGML_UNARY_OP_TANH;
    scaled(&large, CAP);
    struct ggml_tensor *nodes[6] = {&norm}, **end = nodes + 1;
    if (graph == STUB_BETWEEN) *end++ = &between;
    *end++ = &product;
    if (capped) *end++ = &small, *end++ = &bent, *end++ = &large;
    if (graph == STUB_AFTER) *end++ = &after;
    strcpy(end[-1]->name, "result_output");
    for (int32_t i = 0; i < rows * STUB_VOCAB; i++) c->logits[i] = NAN;
    for (struct ggml_tensor **node = nodes; node < end; node++) {
        if (!c->params.cb_eval || !c->params.cb_eval(*node, true, c->params.cb_eval_user_data)) continue;
        if (c->params.cb_eval(*node, false, c->params.cb_eval_user_data)) continue;
        if (rows == 0 || *node != &norm) misuse++;
        shorts++;
        return;
    }
    for (int32_t i = 0; i < rows * STUB_VOCAB; i++)
        c->logits[i] = capped ? tanhf(c->hidden[i] * (1.0f / CAP)) * CAP : c->hidden[i];
}

/* The logits after this token: of letters alone, and of nothing that was before. */
static void follow_chain(float *x, int32_t token) {
    const float *row = chain + token % STUB_LETTERS * STUB_LETTERS;
    for (int32_t t = 0; t < STUB_VOCAB; t++) x[t] = -40;
    memcpy(x + 'a', row, sizeof *row * STUB_LETTERS);
}

int32_t llama_decode(struct llama_context *c, struct llama_batch b) {
    int32_t code = atomic_exchange(&fail_next, 0), rows = 0, n_seqs = 0;
    bool seen[SEQS] = {0};
    begun++;
    if (code) return code;
    if (b.n_tokens < 1 || b.n_tokens > (int32_t)c->params.n_batch) misuse++;
    if (held() + b.n_tokens > cells || (most && b.n_tokens > most)) return 1;
    if (!may_decode(c) || !takes_time(c, b.n_tokens)) return 2;
    for (int32_t i = 0; i < b.n_tokens; i++) {
        struct seq *s = &seqs[b.seq_id[i][0]];
        if (b.n_seq_id[i] != 1 || b.seq_id[i][0] >= (int32_t)c->params.n_seq_max || b.pos[i] != s->n || s->n >= LONGEST)
            misuse++;
        n_seqs += !seen[b.seq_id[i][0]];
        seen[b.seq_id[i][0]] = true;
        s->tok[s->n++] = b.token[i];
        if (done < LOGGED && s->tok[0] >= 'A' && s->tok[0] <= 'Z') took[done][s->tok[0] - 'A']++;
        c->row_of[i] = -1;
        if (!b.logits[i]) continue;
        if (rows == (int32_t)c->params.n_outputs_max) {
            misuse++;
            continue;
        }
        float *x = c->hidden + rows * STUB_VOCAB;
        c->row_of[i] = rows++;
        if (chain) {
            follow_chain(x, b.token[i]);
            continue;
        }
        uint32_t hash = (uint32_t)s->n;
        for (int32_t t = 0; t < STUB_VOCAB; t++) x[t] = (float)((hash = hash * 1664525u + 1013904223u) >> 24) / 256.0f;
        x[STUB_EOG] = -10;
        x[stub_next(s->tok, s->n)] = graph == STUB_WIDE && b.n_tokens > 1 ? 4.000001f : 4;
    }
    compute_graph(c, rows);
    tokens_seen += b.n_tokens;
    if (n_seqs > widest) widest = n_seqs;
    if (b.n_tokens > longest) longest = b.n_tokens;
    done++;
    return 0;
}
float *llama_get_logits_ith(struct llama_context *c, int32_t i) {
    if (c->row_of[i] < 0) misuse++;
    return c->logits + c->row_of[i] * STUB_VOCAB;
}
