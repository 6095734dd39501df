# shellcheck shell=sh
# Who is on which GPU now. JM_GPUS library  JM_GPU_TIMEOUT seconds. Says: uid, gpu.* of that library
main() {
    eval "$JM_GPUS"
    say uid "$(id -u)"
    jm_bounded "$((2 * JM_GPU_TIMEOUT + 2))" jm_look_on
}

jm_look_on() {
    exec 2>/dev/null
    jm_gpu_use
}
