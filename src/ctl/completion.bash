# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion of wrennctl(1): verbs, options, and the ids, names, tags and paths that are there now

# The first column of a list.
_wrennctl_column() {
        wrennctl --no-ask-password --no-legend "$1" 2>/dev/null | awk '{ print $1 }'
}

# Paths in the capsule $1 that begin with $2.
_wrennctl_paths() {
        local directory=${2%"${2##*/}"}

        wrennctl --no-ask-password --no-legend ls "$1" "${directory:-.}" 2>/dev/null |
                sed -En "s/^(d?)\S+ +\S+ +\S+ +\S+ +\S+ +(\S+)( -> .*)?$/\1\2/; s/^d(.*)/\1\//; s|^|${directory//|/}|p"
}

_wrennctl() {
        local current=${COMP_WORDS[COMP_CWORD]} verb='' id='' candidates='' word position=0
        local verbs='list status create run ping destroy logs exec shell ps signal attach ls cat copy-to copy-from
                     list-templates build-template import-template remove-template list-jobs cancel-job
                     list-keys create-key revoke-key doctor version'
        local options='--help --version --all --quiet --json= --no-legend --no-ask-password --host= --team= --default-template=
                       --vcpus= --memory= --disk= --timeout= --label= --setenv= --user= --cwd= --stdin --no-stdin --tty --no-wait
                       --force --follow --lines= --preserve'

        for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
                case $word in
                -?*) continue ;;
                esac
                case $((position++)) in
                0) verb=$word ;;
                1) id=$word ;;
                esac
        done

        if [[ $current == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
                [[ ${COMPREPLY[*]} == *= ]] && compopt -o nospace
                return
        fi
        case $position-$verb in
        0-*) candidates=$verbs ;;
        *-status | *-destroy | 1-ping | 1-logs | 1-exec | 1-shell | 1-ps | 1-signal | 1-attach | 1-ls | 1-cat | 1-copy-to | 1-copy-from)
                candidates=$(_wrennctl_column list) ;;
        2-signal | 2-attach)
                candidates=$(wrennctl --no-ask-password --no-legend ps "$id" 2>/dev/null | awk '{ print $2 }') ;;
        3-signal) candidates=$(compgen -A signal) ;;
        2-ls | *-cat | 2-copy-from)
                compopt -o nospace
                candidates=$(_wrennctl_paths "$id" "$current") ;;
        1-create | 1-run | *-remove-template) candidates=$(_wrennctl_column list-templates) ;;
        1-build-template)
                candidates=$(basename -s .template -a /usr/lib/wrenn/templates.d/*.template /etc/wrenn/templates.d/*.template \
                        2>/dev/null | grep -v '^\*') ;;
        *-import-template | *-copy-to | *-copy-from)
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
                return ;;
        *-revoke-key) candidates=$(_wrennctl_column list-keys) ;;
        1-cancel-job) candidates=$(_wrennctl_column list-jobs) ;;
        esac
        mapfile -t COMPREPLY < <(compgen -W "$candidates" -- "$current")
}
complete -F _wrennctl wrennctl
