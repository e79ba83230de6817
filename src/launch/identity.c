/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Limits, capabilities and the uid: what is given up last, because the steps before need it. */

#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "launch/launch.h"

/* The number of tasks is the scope's TasksMax: RLIMIT_NPROC would count per uid across scopes. */
int step_limits(Plan *p) {
        const struct {
                int resource;
                const char *name;
                rlim_t value;
        } limits[] = {
                { RLIMIT_FSIZE, "FSIZE", p->fsize_bytes },
                { RLIMIT_NOFILE, "NOFILE", LAUNCH_NOFILE },
                { RLIMIT_CORE, "CORE", 0 },
                { RLIMIT_MEMLOCK, "MEMLOCK", p->memory_lock_bytes },
                { RLIMIT_MSGQUEUE, "MSGQUEUE", 0 },
                { RLIMIT_NICE, "NICE", 0 },
                { RLIMIT_RTPRIO, "RTPRIO", 0 },
        };

        for (size_t i = 0; i < ELEMENTSOF(limits); i++) {
                struct rlimit rl = { limits[i].value, limits[i].value };

                if (setrlimit(limits[i].resource, &rl) < 0)
                        return launch_error(errno, "cannot set the limit %s", limits[i].name);
        }
        return 0;
}

int step_capabilities(Plan *p) {
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
                return launch_error(errno, "cannot clear the ambient capabilities");
        for (unsigned long cap = 0; cap < 64; cap++)
                if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
                        if (errno == EINVAL && cap > 0)
                                return 0; /* beyond the last one this kernel knows */
                        return launch_error(errno, "cannot drop capability %lu from the bounding set", cap);
                }
        return 0;
}

/*
 * Leaving uid 0 empties the permitted and effective sets; the inheritable one stays, so all three are
 * written. The process is dumpable again after the exec that follows (same real and effective uid), which
 * the monitor needs to read its VMM's pages; the monitor itself takes that right away from the VMM with
 * PR_SET_DUMPABLE.
 */
int step_identity(Plan *p) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
        uid_t r_uid, e_uid, s_uid;

        if (setgroups(0, NULL) < 0)
                return launch_error(errno, "cannot clear the groups");
        if (setresgid(p->gid, p->gid, p->gid) < 0)
                return launch_error(errno, "cannot become group %u", p->gid);
        if (setresuid(p->uid, p->uid, p->uid) < 0)
                return launch_error(errno, "cannot become user %u", p->uid);
        if (syscall(SYS_capset, &header, none) < 0)
                return launch_error(errno, "cannot clear the capabilities");
        if (getresuid(&r_uid, &e_uid, &s_uid) < 0 || r_uid != p->uid || e_uid != p->uid || s_uid != p->uid)
                return launch_error(EPERM, "cannot become user %u", p->uid);
        return 0;
}

int step_no_new_privileges(Plan *p) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return launch_error(errno, "cannot set no_new_privs");
        return 0;
}

/* Huge pages would make a clone copy 2 MiB where it wrote one page. */
int step_memory(Plan *p) {
        if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) < 0)
                return launch_error(errno, "cannot switch off huge pages");
        return 0;
}
