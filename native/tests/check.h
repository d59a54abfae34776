/* What all tests against the stub share: checks that are counted, tests by name, an engine over the stub. */
#ifndef FAZAI_CHECK_H
#define FAZAI_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../gemma_internal.h"
#include "stub_llama.h"

extern int passed, failed;
#define CHECK(what)                                                                            \
    do {                                                                                       \
        if (what) passed++;                                                                    \
        else failed++, fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);              \
    } while (0)

/* VERBOSE names the test on stderr, for a run that hangs; ONLY=word runs those with it in their name. */
#define RUN(test)                                                                              \
    do {                                                                                       \
        if (getenv("ONLY") && !strstr(#test, getenv("ONLY"))) break;                           \
        if (getenv("VERBOSE")) fprintf(stderr, "%s\n", #test);                                 \
        test();                                                                                \
    } while (0)

static inline fz_engine *opened(const fz_options *o) {
    char err[200] = "";
    fz_engine *e = NULL;
    if (fz_open("stub.gguf", o, &e, err, sizeof err) != FZ_OK) {
        fprintf(stderr, "fz_open: %s\n", err);
        exit(1);
    }
    return e;
}

#endif
