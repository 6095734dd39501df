# shellcheck shell=sh
# uses: lib/kernel
# Register an environment as a kernel of this account and prove that it runs; else leave everything as it was.
# JM_NAME kernel  JM_DISPLAY  JM_PYTHON JM_PREFIX JM_ENV JM_KIND JM_ROOT of the environment  JM_INSTALL 1: ipykernel too
# JM_REPLACE 1: also a kernel of another environment  JM_PROOF 1 and JM_LIMIT seconds  JM_WISH JSON for JM_WRITE
# JM_WRITE JM_PROVE Python programs
# Says: step, line, directory, refreshed, executable, prefix, version, conda, json
main() {
    jm_backup='' jm_target='' jm_began='' jm_temporary='' jm_answer='' jm_status=''
    trap 'jm_rollback; exit 0' HUP INT TERM PIPE
    [ -x "$JM_PYTHON" ] || fail env-missing "there is no Python at $JM_PYTHON" "see jupyman env ls"
    jm_install
    jm_place
    say step "registering kernel $JM_NAME" || { jm_rollback; exit 0; }
    # ipykernel does not remove its temporary directory (kernelspec.py, write_kernel_spec), so it is made inside ours.
    jm_scratch || jm_refuse "no room in /tmp" "make room on the host"
    jm_complaint=$(TMPDIR=$jm_temporary "$JM_PYTHON" -m ipykernel install --user --name "$JM_NAME" --display-name "$JM_DISPLAY" 2>&1 >/dev/null) ||
        jm_refuse "ipykernel could not register the kernel: $(printf '%s\n' "$jm_complaint" | tail -n 1 | cut -c1-300)"
    jm_shell=/bin/sh
    for jm_try in /bin/bash /usr/bin/bash /usr/local/bin/bash; do
        if [ -x "$jm_try" ]; then jm_shell=$jm_try && break; fi
    done
    # The host chooses the shell; these paths need no escaping in JSON.
    # shellcheck disable=SC2153 # JM_WISH comes from jupyman
    jm_wish=$(printf '%s\n' "$JM_WISH" | sed "s|@SHELL@|$jm_shell|")
    jm_complaint=$(printf '%s\n' "$JM_WRITE" | "$JM_PYTHON" - write "$jm_target/kernel.json" 2>&1 3<<JM_END
$jm_wish
JM_END
    ) || jm_refuse "the kernel's activation could not be written: $(printf '%s\n' "$jm_complaint" | tail -n 1 | cut -c1-300)"
    [ "$JM_PROOF" != 1 ] || jm_prove
    # Reported before it is final: if nobody listens any more, it is undone.
    say directory "$jm_target" || { jm_rollback; exit 0; }
    printf 'json ' && tr -d '\r\n' <"$jm_target/kernel.json" && echo
    jm_began=''
    rm -rf -- "$jm_temporary"
    [ -z "$jm_backup" ] || rm -rf -- "$jm_backup"
}

# Remove what was added and restore what was there.
jm_rollback() {
    trap '' HUP INT TERM PIPE
    [ -z "$jm_temporary" ] || rm -rf -- "$jm_temporary"
    [ -n "$jm_began" ] || return 0
    rm -rf -- "$jm_target"
    [ -z "$jm_backup" ] || mv -- "$jm_backup" "$jm_target"
}

jm_refuse() {
    jm_rollback
    fail kernel "$1" "${2:-nothing was changed; try by hand on the host: $JM_PYTHON -m ipykernel -h}"
}

jm_install() {
    jm_runs "$JM_PYTHON" || fail kernel "$JM_PYTHON does not run" "mend the environment, or choose another"
    ! jm_has "$JM_PYTHON" ipykernel || return 0
    [ "$JM_INSTALL" = 1 ] || fail kernel "environment $JM_ENV has no ipykernel" "run it again with --install, or install ipykernel there yourself"
    jm_words=$(jm_installer ipykernel)
    case $? in
        1) fail kernel "environment $JM_ENV has no ipykernel, and no pip, conda or uv was found to install it" "install ipykernel there yourself" ;;
        2) fail kernel "environment $JM_ENV has no ipykernel, and you cannot change it" "ask its owner to install ipykernel, or make an environment of your own" ;;
    esac
    say step "installing ipykernel: $(printf '%s\n' "$jm_words" | tr '\n' ' ')" || exit 0
    jm_execute "$jm_words"
    if [ "$jm_status" = 0 ] && jm_has "$JM_PYTHON" ipykernel; then return 0; fi
    fail kernel "ipykernel could not be installed in $JM_ENV (status $jm_status)" "see the lines above; the environment may belong to another user or the host may have no network"
}

# jm_place: find the directory for the kernel, and set aside what is there.
jm_place() {
    jm_specs=$("$JM_PYTHON" -c 'from jupyter_core.paths import jupyter_data_dir as d; print(d())' 2>/dev/null)/kernels
    [ "$jm_specs" != /kernels ] || fail kernel "environment $JM_ENV has no jupyter_core" "reinstall ipykernel there"
    jm_target=$jm_specs/$JM_NAME
    [ ! -L "$jm_target" ] || fail not-ours "$jm_target is a symbolic link" "find out who made it, then remove it"
    jm_error=$({ mkdir -p -- "$jm_specs" && [ -w "$jm_specs" ]; } 2>&1) ||
        fail remote-failed "cannot write in $jm_specs${jm_error:+: ${jm_error##*: }}" "make room or mend its permissions on the host"
    if [ -e "$jm_target" ]; then
        jm_other=$(printf '%s\n' "$JM_WRITE" | "$JM_PYTHON" - owner "$jm_target/kernel.json" 2>/dev/null)
        jm_mine=$("$JM_PYTHON" -c 'import os, sys; print(os.path.realpath(sys.argv[1]))' "$JM_PREFIX")
        [ "$jm_other" = "$jm_mine" ] || [ "$JM_REPLACE" = 1 ] ||
            fail usage "kernel $JM_NAME already runs another environment ($jm_other)" "choose another --name, or use --replace"
        say refreshed 1
        # Beside `kernels`, in which Jupyter would list it as a kernel.
        jm_backup=${jm_specs%/kernels}/.jupyman-$JM_NAME-$$
        jm_error=$(cp -Rp -- "$jm_target" "$jm_backup" 2>&1) || {
            rm -rf -- "$jm_backup"
            fail remote-failed "cannot write in $jm_specs: ${jm_error##*: }" "make room or mend its permissions on the host"
        }
    fi
    jm_began=1
}

jm_prove() {
    say step "starting a kernel to see that it works" || { jm_rollback; exit 0; }
    jm_try_kernel "$jm_specs" || jm_refuse "the kernel of $JM_ENV does not start: $jm_complaint" "nothing was changed; try on the host: $JM_PYTHON -m ipykernel_launcher"
    jm_seen=$(printf '%s\n' "$jm_answer" | sed -n 's/^prefix //p')
    jm_mine=$("$JM_PYTHON" -c 'import os, sys; print(os.path.realpath(sys.prefix))')
    [ "$jm_seen" = "$jm_mine" ] || jm_refuse "the kernel runs in $jm_seen, not in $jm_mine" "nothing was changed; look at the environment's etc/conda/activate.d"
    printf '%s\n' "$jm_answer" | sed '/^$/d'
}
