#!/bin/sh
# A stand-in for nvidia-smi: prints a case of tests/data/nvidia-smi. The folder `cases` lies beside this file and the
# case is named by the file `nvidia-smi.case` beside the link by which this was called; a file `nvidia-smi.apps` there is
# the table of processes instead of the case's: of processes that really run.
set -u

here=$(dirname "$0")
read -r case <"$here/nvidia-smi.case" || exit 255
data=$(dirname "$(readlink -f "$0")")/cases/$case

rc=0
[ ! -f "$data/rc" ] || read -r rc <"$data/rc"
if [ -f "$data/hang" ]; then
    read -r seconds <"$data/hang"
    # By exec: who kills this process ends the hanging.
    exec sleep "$seconds"
fi
if [ -f "$data/failure.txt" ]; then
    cat "$data/failure.txt"
    exit "$rc"
fi

# table FILE FIELDS: the columns by name. The third field of four may hold commas: a process's name is its user's choice.
table() {
    awk -v wanted="$2" '
        NR == 1 {
            count = split($0, known, /, */)
            for (i = 1; i <= count; i++) column[known[i]] = i
            alias["process_name"] = "name"; alias["used_gpu_memory"] = "used_memory"
            for (full in alias) if (full in column) column[alias[full]] = column[full]
            asked = split(wanted, field, /,/)
            for (i = 1; i <= asked; i++)
                if (!(field[i] in column)) {
                    printf "Field \"%s\" is not a valid field to query.\n\n", field[i]
                    status = 2
                    exit
                }
            next
        }
        {
            cells = split($0, cell, /, /)
            if (count == 4 && cells > 4) {
                for (i = 4; i < cells; i++) cell[3] = cell[3] ", " cell[i]
                cell[4] = cell[cells]
            }
            line = cell[column[field[1]]]
            for (i = 2; i <= asked; i++) line = line ", " cell[column[field[i]]]
            print line
        }
        END { exit status }
    ' "$1"
}

query='' format=''
for word in "$@"; do
    case $word in
        --query-gpu=*) query=gpus.csv fields=${word#*=} ;;
        --query-compute-apps=*) query=apps.csv fields=${word#*=} ;;
        --format=*) format=${word#*=} ;;
        -L | --list-gpus) query=list.txt ;;
        *)
            printf 'Invalid combination of input arguments. Please run '\''nvidia-smi -h'\'' for help.\n\n'
            exit 2
            ;;
    esac
done
case $query in
    '') cat "$data/header.txt" ;;
    list.txt) cat "$data/list.txt" ;;
    apps.csv)
        [ ! -f "$here/nvidia-smi.apps" ] || data=$here query=nvidia-smi.apps
        ;;
esac
case $query in
    '' | list.txt) ;;
    *)
        if [ "$format" != csv,noheader,nounits ]; then
            echo "this stand-in knows only --format=csv,noheader,nounits"
            exit 2
        fi
        table "$data/$query" "$fields" || exit 2
        ;;
esac
exit "$rc"
