/* What llama.cpp can do on this machine, asked without a model. */
#include <stdio.h>
#include <string.h>

#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "gemma_internal.h"

int32_t fz_gpu(void) { return llama_supports_gpu_offload(); }

int32_t fz_devices(char *text, int32_t len) {
    int32_t used = 0;
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        ggml_backend_dev_t dev = ggml_backend_dev_get(i);
        char *at = used < len ? text + used : NULL;
        used += snprintf(at, at ? (size_t)(len - used) : 0, "%s\t%s\n", ggml_backend_dev_name(dev),
                         ggml_backend_dev_description(dev));
    }
    return used;
}

/* Whether llama.cpp would put a matrix into one of the CPU's own layouts: it asks in this way, too. */
static bool is_repacked(struct ggml_tensor *matrix, const struct ggml_tensor *product) {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!cpu) return false;
    void *found = ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), "ggml_backend_dev_get_extra_bufts");
    ggml_backend_dev_get_extra_bufts_t list;
    memcpy(&list, &found, sizeof list); /* ISO C has no cast from an object to a function */
    bool takes = false;
    for (ggml_backend_buffer_type_t *layout = list ? list(cpu) : NULL; layout && *layout && !takes; layout++) {
        matrix->buffer = ggml_backend_buft_alloc_buffer(*layout, 0);
        takes = matrix->buffer && ggml_backend_dev_supports_op(cpu, product);
        ggml_backend_buffer_free(matrix->buffer);
        matrix->buffer = NULL;
    }
    return takes;
}

int32_t fz_matrix_way(int32_t type, int64_t columns, int64_t rows) {
    if (type < 0 || type >= GGML_TYPE_COUNT || columns < 1 || rows < 1 || columns > 1 << 24 || rows > 1 << 28)
        return FZ_E_INVALID;
    int64_t block = ggml_blck_size((enum ggml_type)type);
    if (block < 1 || columns % block != 0) return FZ_E_INVALID;
    struct ggml_context *room = ggml_init((struct ggml_init_params){.mem_size = ggml_tensor_overhead() * 8, .no_alloc = true});
    if (!room) return FZ_E_MEMORY;
    struct ggml_tensor *matrix = ggml_new_tensor_2d(room, (enum ggml_type)type, columns, rows);
    struct ggml_tensor *batch = ggml_new_tensor_2d(room, GGML_TYPE_F32, columns, FZ_BATCH);
    bool repacked = is_repacked(matrix, ggml_mul_mat(room, matrix, batch));
    ggml_free(room);
    if (repacked) return FZ_W_REPACKED;
    const struct ggml_type_traits_cpu *way = ggml_get_type_traits_cpu((enum ggml_type)type);
    return way && way->vec_dot ? FZ_W_ROWS : FZ_W_NONE;
}
