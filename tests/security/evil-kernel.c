/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Privileges, kernel interfaces, the state the process is in. */

#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/wait.h>

#include "tests/security/evil.h"

#define SYSCALL_PROBE(name, ...)                     \
        static int name(const Params *p) {           \
                return answer(syscall(__VA_ARGS__)); \
        }

SYSCALL_PROBE(setuid_root, SYS_setuid, 0)
SYSCALL_PROBE(setgid_root, SYS_setgid, 0)
SYSCALL_PROBE(setresuid_root, SYS_setresuid, 0, 0, 0)
SYSCALL_PROBE(unshare_user, SYS_unshare, CLONE_NEWUSER)
SYSCALL_PROBE(unshare_net, SYS_unshare, CLONE_NEWNET)
SYSCALL_PROBE(unshare_mount, SYS_unshare, CLONE_NEWNS)
SYSCALL_PROBE(setns_own, SYS_setns, 0, CLONE_NEWNET)
SYSCALL_PROBE(clone_three, SYS_clone3, NULL, 0)
SYSCALL_PROBE(chroot_here, SYS_chroot, "/dev")
SYSCALL_PROBE(pivot, SYS_pivot_root, "/", "/dev")
SYSCALL_PROBE(mount_tmpfs, SYS_mount, "x", "/dev", "tmpfs", 0, NULL)
SYSCALL_PROBE(remount_root, SYS_mount, NULL, "/", NULL, 32 | 4096, NULL) /* MS_REMOUNT | MS_BIND */
SYSCALL_PROBE(umount_layer, SYS_umount2, "/layer", 2)
SYSCALL_PROBE(mount_attributes, SYS_mount_setattr, AT_FDCWD, "/rootfs", 0, NULL, 0)
SYSCALL_PROBE(open_mount_tree, SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE)
SYSCALL_PROBE(move_a_mount, SYS_move_mount, AT_FDCWD, "/layer", AT_FDCWD, "/rootfs", 0)
SYSCALL_PROBE(new_filesystem, SYS_fsopen, "tmpfs", 0)
SYSCALL_PROBE(keyring, SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)
SYSCALL_PROBE(key_add, SYS_add_key, "user", "x", "y", 1, KEY_SPEC_PROCESS_KEYRING)
SYSCALL_PROBE(key_request, SYS_request_key, "user", "x", NULL, 0)
SYSCALL_PROBE(uring, SYS_io_uring_setup, 4, NULL)
SYSCALL_PROBE(uffd, SYS_userfaultfd, 0)
SYSCALL_PROBE(kexec, SYS_kexec_load, 0, 0, NULL, 0)
SYSCALL_PROBE(module_init, SYS_init_module, NULL, 0, "")
SYSCALL_PROBE(module_finit, SYS_finit_module, 0, "", 0)
SYSCALL_PROBE(module_delete, SYS_delete_module, "x", 0)
SYSCALL_PROBE(fanotify, SYS_fanotify_init, 0, 0)
SYSCALL_PROBE(accounting, SYS_acct, NULL)
SYSCALL_PROBE(swap_on, SYS_swapon, "/layer", 0)
SYSCALL_PROBE(reboot_machine, SYS_reboot, 0xfee1dead, 672274793, 0, NULL) /* CAD_OFF */
SYSCALL_PROBE(hangup, SYS_vhangup)
SYSCALL_PROBE(host_name, SYS_sethostname, "evil", 4)
SYSCALL_PROBE(quota, SYS_quotactl, 0, NULL, 0, NULL)
SYSCALL_PROBE(pages_move, SYS_move_pages, 0, 0, NULL, NULL, NULL, 0)
SYSCALL_PROBE(personality_read, SYS_personality, 0xffffffff)
#if defined(__x86_64__)
SYSCALL_PROBE(io_privilege, SYS_iopl, 3)
SYSCALL_PROBE(io_ports, SYS_ioperm, 0x80, 1, 1)
SYSCALL_PROBE(local_descriptors, SYS_modify_ldt, 0, NULL, 0)
SYSCALL_PROBE(x32, 0x40000000 | SYS_getpid)
#endif

static int clone_with(unsigned long flags) {
        long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);

        if (pid == 0)
                _exit(0);
        if (pid > 0)
                (void) waitpid((pid_t) pid, NULL, 0);
        return answer(pid);
}

static int clone_user(const Params *p) {
        return clone_with(CLONE_NEWUSER);
}

static int clone_net(const Params *p) {
        return clone_with(CLONE_NEWNET);
}

static int groups_set(const Params *p) {
        gid_t zero = 0;

        return answer(setgroups(1, &zero));
}

static int capabilities_take(const Params *p) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2] = { { .effective = 1, .permitted = 1 }, {} };

        return answer(syscall(SYS_capset, &header, data));
}

static int ambient_raise(const Params *p) {
        return answer(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0));
}

static int bpf_map(const Params *p) {
        union bpf_attr attr = {
                .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1
        };

        return answer(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)));
}

static int perf(const Params *p) {
        struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE,
                                        .size = sizeof(attr),
                                        .config = PERF_COUNT_SW_CPU_CLOCK };

        return answer(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
}

static int kernel_log(const Params *p) {
        return answer(klogctl(10, NULL, 0));
}

static int clock_set(const Params *p) {
        struct timeval tv = { .tv_sec = 1 };

        return answer(syscall(SYS_settimeofday, &tv, NULL));
}

static int clock_adjust(const Params *p) {
        struct timex t = { .modes = ADJ_OFFSET };

        return answer(syscall(SYS_adjtimex, &t));
}

static int memory_write_execute(const Params *p) {
        void *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        return m == MAP_FAILED ? errno : 0;
}

static int memory_make_executable(const Params *p) {
        void *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        return m == MAP_FAILED ? ENODEV : answer(mprotect(m, 4096, PROT_READ | PROT_EXEC));
}

#if defined(__x86_64__)
/* The 32 bit entry has other numbers: a filter that forgot it would be walked around. */
static int int80(const Params *p) {
        long r;

        __asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory");
        return r > 0 ? 0 : 1;
}

static int old_entry(const Params *p) {
        return in_child(int80, p);
}
#endif

const Probe probes_privileges[] = {
        { "setuid-root", setuid_root, EPERM },
        { "setgid-root", setgid_root, EPERM },
        { "setresuid-root", setresuid_root, EPERM },
        { "setgroups", groups_set, EPERM },
        { "capset", capabilities_take, EPERM },
        { "ambient-raise", ambient_raise, EPERM },
        { "unshare-user", unshare_user, EPERM },
        { "unshare-net", unshare_net, EPERM },
        { "unshare-mount", unshare_mount, EPERM },
        { "clone-user", clone_user, EPERM },
        { "clone-net", clone_net, EPERM },
        { "clone3", clone_three, ENOSYS },
        { "setns", setns_own, EPERM },
        { "chroot", chroot_here, EPERM },
        { "pivot-root", pivot, EPERM },
        { "mount", mount_tmpfs, EPERM },
        { "remount", remount_root, EPERM },
        { "umount", umount_layer, EPERM },
        { "mount-setattr", mount_attributes, EPERM },
        { "open-tree", open_mount_tree, EPERM },
        { "move-mount", move_a_mount, EPERM },
        { "fsopen", new_filesystem, EPERM },
        { "keyctl", keyring, EPERM },
        { "add-key", key_add, EPERM },
        { "request-key", key_request, EPERM },
        { "bpf", bpf_map, EPERM },
        { "perf-event", perf, EPERM },
        { "io-uring", uring, EPERM },
        { "userfaultfd", uffd, EPERM },
        { "kexec", kexec, EPERM },
        { "init-module", module_init, EPERM },
        { "finit-module", module_finit, EPERM },
        { "delete-module", module_delete, EPERM },
        { "fanotify", fanotify, EPERM },
        { "acct", accounting, EPERM },
        { "swapon", swap_on, EPERM },
        { "reboot", reboot_machine, EPERM },
        { "vhangup", hangup, EPERM },
        { "sethostname", host_name, EPERM },
        { "quotactl", quota, EPERM },
        { "move-pages", pages_move, EPERM },
        { "personality", personality_read, EPERM },
        { "syslog", kernel_log, EPERM },
        { "settimeofday", clock_set, EPERM },
        { "adjtimex", clock_adjust, EPERM },
        { "mmap-write-execute", memory_write_execute, EPERM },
        { "mprotect-execute", memory_make_executable, EPERM },
#if defined(__x86_64__)
        { "iopl", io_privilege, EPERM },
        { "ioperm", io_ports, EPERM },
        { "modify-ldt", local_descriptors, EPERM },
        { "x32", x32, ENOSYS },
        { "int80", old_entry, PROBE_SIGNAL + SIGSYS },
#endif
        {},
};

static int identity(const Params *p) {
        uid_t r, e, s;
        gid_t gr, ge, gs;

        if (getresuid(&r, &e, &s) < 0 || getresgid(&gr, &ge, &gs) < 0)
                return errno;
        if (r != p->uid || e != p->uid || s != p->uid || gr != p->uid || ge != p->uid || gs != p->uid)
                return EPERM;
        return getgroups(0, NULL) == 0 ? 0 : EEXIST;
}

static int capabilities(const Params *p) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2];

        if (syscall(SYS_capget, &header, data) < 0)
                return errno;
        for (size_t i = 0; i < 2; i++)
                if (data[i].effective || data[i].permitted || data[i].inheritable)
                        return EEXIST;
        for (unsigned long cap = 0; cap < 64; cap++)
                if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) > 0)
                        return EEXIST;
        return 0;
}

static int no_new_privileges(const Params *p) {
        return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : EPERM;
}

static int filtered(const Params *p) {
        return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 2 ? 0 : EPERM;
}

static int huge_pages_off(const Params *p) {
        return prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0) == 1 ? 0 : EPERM;
}

/* The VMM dies with its monitor; the monitor does not die with wrennd. */
static int parent_death(const Params *p) {
        int sig = -1;

        if (prctl(PR_GET_PDEATHSIG, &sig) < 0)
                return errno;
        return sig == (p->direct ? 0 : SIGKILL) ? 0 : EPERM;
}

static int session(const Params *p) {
        return getsid(0) == (p->direct ? getpid() : getppid()) ? 0 : EPERM;
}

static int environment(const Params *p) {
        unsigned n = 0;

        for (char **e = environ; *e; e++)
                n += strncmp(*e, "LC_ALL=", 7) != 0;
        return n == 0 ? 0 : EEXIST;
}

/* Only the monitor acts on the signals that end a scope. */
static int blocked_signals(const Params *p) {
        sigset_t mask;

        if (sigprocmask(SIG_SETMASK, NULL, &mask) < 0)
                return errno;
        return sigismember(&mask, SIGTERM) == !p->direct ? 0 : EPERM;
}

const Probe probes_state[] = {
        { "identity", identity, 0 },
        { "capabilities", capabilities, 0 },
        { "no-new-privileges", no_new_privileges, 0 },
        { "seccomp", filtered, 0 },
        { "huge-pages-off", huge_pages_off, 0 },
        { "parent-death-signal", parent_death, 0 },
        { "session", session, 0 },
        { "environment", environment, 0 },
        { "blocked-signals", blocked_signals, 0 },
        {},
};
