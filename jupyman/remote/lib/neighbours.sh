# shellcheck shell=sh disable=SC2154 # some variables come from the libraries
# uses: lib/server
# Whether other people have accounts on this host.
# Nobody can list the accounts of a directory service (LDAP, AD: enumeration is off as a rule), and what cannot be seen
# is no proof. So status 0, "alone", is for hosts where all accounts can be seen and all but ours and root are programs'.

# jm_alone: nobody but this account and root can log in here, or runs anything.
jm_alone() {
    # Processes can be seen at all (not with hidepid, nor without /proc: macOS).
    [ -r /proc/1/status ] || return 1
    ! grep -q '^[^ ]* /proc proc [^ ]*hidepid=[^0o]' /proc/mounts 2>/dev/null || return 1
    jm_known=$(within 3 getent passwd 2>/dev/null) || jm_known=''
    jm_known=$jm_known$JM_NL$(cat /etc/passwd 2>/dev/null)
    # An account that /etc/passwd does not have is of a directory service, and so may be many more.
    grep -q "^[^:]*:[^:]*:$jm_me:" /etc/passwd 2>/dev/null || return 1
    # nsswitch.conf(5). "sss" and "systemd" stand there on machines of one person too (Fedora): what answers must run.
    # shellcheck disable=SC2013 # words are meant
    for jm_source in $(sed -n 's/^[[:space:]]*passwd:\([^#]*\).*/\1/p' /etc/nsswitch.conf 2>/dev/null | sed 's/\[[^]]*\]//g'); do
        case $jm_source in files | compat | db | altfiles | extrausers | systemd | sss) ;; *) return 1 ;; esac
    done
    ! cat /proc/[0-9]*/comm 2>/dev/null | grep -qxE 'sssd|sssd_be|nslcd|winbindd|ypbind|oddjobd|himmelblaud|aad-auth' || return 1
    # login.defs(5): people's uids begin here.
    jm_first=$(sed -n 's/^[[:space:]]*UID_MIN[[:space:]]\{1,\}\([0-9]\{1,9\}\).*/\1/p' /etc/login.defs 2>/dev/null | head -n 1)
    {
        printf '%s\n' "$jm_known"
        echo '--'
        cat /proc/[0-9]*/status 2>/dev/null | grep '^Uid:'
    } | awk -F: -v me="$jm_me" -v first="${jm_first:-1000}" '
        # nobody; and uids that systemd gives to services for a while (systemd.io/UIDS-GIDS).
        function person(uid) { return uid >= first && uid != me && uid != 65534 && !(uid >= 61184 && uid <= 65519) }
        $0 == "--" { table = 1; next }
        # No shell means /bin/sh (passwd(5)).
        !table && NF >= 7 && person($3) && $7 !~ /\/(nologin|false|sync|shutdown|halt|git-shell)$/ { met = 1 }
        table { split($2, uid, " "); if (person(uid[1] + 0)) met = 1 }
        END { exit met }'
}
