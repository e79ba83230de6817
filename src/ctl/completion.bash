# SPDX-License-Identifier: LGPL-2.1-or-later
# bash completion of wrennctl(1): verbs, options, and the ids and names that are there now
_wrennctl() {
        local current=${COMP_WORDS[COMP_CWORD]} verb='' word
        local verbs='list status create run exec ping destroy list-templates build-template import-template remove-template
                     list-jobs cancel-job list-keys create-key revoke-key doctor version'
        local options='--help --version --all --quiet --json= --no-legend --no-ask-password --host= --team= --default-template=
                       --vcpus= --memory= --disk= --timeout= --label= --setenv= --user= --cwd= --stdin --no-stdin --no-wait --force'

        for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
                case $word in
                -*) ;;
                *) verb=$word; break ;;
                esac
        done

        if [[ $current == -* ]]; then
                mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
                [[ ${COMPREPLY[*]} == *= ]] && compopt -o nospace
                return
        fi
        case $verb in
        '') mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$current") ;;
        status | exec | ping | destroy)
                mapfile -t COMPREPLY < <(compgen -W "$(wrennctl list --no-legend 2>/dev/null | cut -d' ' -f1)" -- "$current") ;;
        create | run | remove-template)
                mapfile -t COMPREPLY < <(compgen -W "$(wrennctl list-templates --no-legend 2>/dev/null | cut -d' ' -f1)" -- "$current") ;;
        build-template)
                mapfile -t COMPREPLY < <(compgen -W "$(basename -s .template -a /usr/lib/wrenn/templates.d/*.template \
                        /etc/wrenn/templates.d/*.template 2>/dev/null | grep -v '^\*')" -- "$current") ;;
        import-template) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        revoke-key)
                mapfile -t COMPREPLY < <(compgen -W "$(wrennctl list-keys --no-legend 2>/dev/null | cut -d' ' -f1)" -- "$current") ;;
        cancel-job)
                mapfile -t COMPREPLY < <(compgen -W "$(wrennctl list-jobs --no-legend 2>/dev/null | awk '{print $1}')" -- "$current") ;;
        esac
}
complete -F _wrennctl wrennctl
