/* What a test sets in the stub of llama.cpp (stub_llama.c). */
#ifndef STUB_LLAMA_H
#define STUB_LLAMA_H

#include <stdbool.h>
#include <stdint.h>

/* Behind the layers: as Gemma's; with soft-capped logits; without a name; the matrix elsewhere; its kernel gives other
 * bits; something else in between, and after it; hidden rows that cannot be read; rows
 * of several tokens at once that differ in their last bits. */
enum stub_graph { STUB_PLAIN, STUB_CAPPED, STUB_NAMELESS, STUB_ELSEWHERE, STUB_INEXACT, STUB_BETWEEN, STUB_AFTER, STUB_HIDDEN, STUB_WIDE };

enum { STUB_VOCAB = 400, STUB_EOG = 256, STUB_CONTROL = 257, STUB_PAIR = 258, STUB_SCRIPT = 300, STUB_LETTERS = 8 };

void stub_reset(void);
void stub_cells(int32_t cells);          /* how many cells the KV cache has */
void stub_decode_us(int32_t us);         /* how long a decode takes; the abort callback is asked meanwhile */
void stub_busy_us(int32_t us);           /* and with more than one thread, on a machine that is busy; 0: as long */
void stub_hold(int32_t tokens);          /* decodes of at least so many do not end until they are aborted, or it is 0 */
int32_t stub_held(void);                 /* how many were held */
int32_t stub_begun(void);                /* how many decodes were begun */
void stub_room(int32_t tokens);          /* no decode of more has room in the cache; 0: all have */
void stub_allow(int32_t decodes);        /* so many more, then the next one waits to be allowed; -1: as many as come */
bool stub_waits(void);                   /* a decode waits to be allowed */
int32_t stub_decodes(void);              /* decodes that were done; those of the engine's start count */
int32_t stub_took(int32_t decode, char first); /* tokens of sequences that begin with this one, in that decode */
void stub_fail_next(int32_t code);       /* the next decode returns it and does nothing */
void stub_script(int32_t n, const char *bytes); /* after token STUB_SCRIPT + n come these bytes, then the end */
/* Logits of the letters from 'a' on after each, a row for a letter's number modulo STUB_LETTERS; NULL: as hashed. */
void stub_chain(const float *logits);
int32_t stub_next(const int32_t *tokens, int32_t n); /* the likeliest token after these */
int32_t stub_widest(void);               /* the most sequences that one decode had */
int32_t stub_longest(void);              /* the most tokens */
int32_t stub_tokens(void);               /* all tokens decoded */
int32_t stub_misuse(void);               /* calls that llama.cpp would not have forgiven */
int32_t stub_short(void);                /* decodes that the callback ended before the output matrix */
void stub_graph(enum stub_graph graph);
void stub_no_model(int32_t on);
void stub_no_state(int32_t how);         /* of a sequence: 1 has no size, 2 cannot be copied, 3 nor put back */
int32_t stub_states(void);               /* copies of sequences that were made */
void stub_other_release(int32_t on);     /* 1: llama.cpp says another version, 2: ggml another commit */

#endif
