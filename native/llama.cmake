# Read by CMake behind llama.cpp's project() line (CMAKE_PROJECT_llama.cpp_INCLUDE, set by tools/worker_install.py).
# llama-cpp-python's own build switches the "common" library on by force; only llama.cpp's programs use it.
set(LLAMA_BUILD_COMMON OFF)
