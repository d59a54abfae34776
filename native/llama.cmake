# Read by CMake behind llama.cpp's project() line (CMAKE_PROJECT_llama.cpp_INCLUDE, set by tools/worker_install.py and
# bench/llama_peers.py).

# llama-cpp-python's own build switches the "common" library on by force; only llama.cpp's programs use it.
if(NOT LLAMA_BUILD_SERVER)
    set(LLAMA_BUILD_COMMON OFF)
endif()

# GCC tells itself that _tile_loadconfig reads eight bytes of the 64, and takes the stores of the others away: the first
# batch of a prompt then ends the process with an illegal instruction, on processors that have AMX (seen with GCC 12).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14
   AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 11 AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
    add_compile_options(-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
endif()
