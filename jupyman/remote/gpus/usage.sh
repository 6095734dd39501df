# shellcheck shell=sh
# uses: lib/gpus
# The processes on the GPUs. JM_GPU_TIMEOUT seconds. Says: uid, gpu.* (lib/gpus)
main() {
    say uid "$(id -u)"
    jm_bounded "$((2 * JM_GPU_TIMEOUT + 2))" jm_look_on
}

jm_look_on() {
    exec 2>/dev/null
    jm_gpu_use
}
