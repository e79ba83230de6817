/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "daemon/core/vmm.h"
#include "daemon/host/vmm-files.h"

#define CPUINFO_MAX   (1 * MIB)
#define TSC_BASE_USEC USEC_PER_SEC /* measured over at least that long, the rate is kept */

struct VmmProbe {
        Manager *manager;        /* weak: outlives us */
        const char *kvm_problem; /* static text; NULL: usable */
        char *program, *launcher, *monitor;
        char **files, **jail_args;
        char *stamp;
        Accelerator files_for;
        uint64_t tsc_first, tsc_first_nsec, tsc_khz;
};

#if defined(__x86_64__)
static uint64_t read_tsc(void) {
        return __builtin_ia32_rdtsc();
}
#else
static uint64_t read_tsc(void) {
        return 0;
}
#endif

static uint64_t raw_nsec(void) {
        struct timespec ts;

        (void) clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
        return (uint64_t) ts.tv_sec * 1000000000U + (uint64_t) ts.tv_nsec;
}

/* An ordinary guest kernel hangs on hosts whose processor shows no virtualization, whatever /dev/kvm says
 * (decision 4). */
static const char* find_kvm_problem(Accelerator wanted) {
        _cleanup_close_ int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
        _cleanup_free_ char *cpuinfo = NULL;

        if (fd < 0)
                return errno == ENOENT ? "there is no /dev/kvm" : "/dev/kvm cannot be opened";
#if defined(__x86_64__)
        if (wanted != ACCELERATOR_KVM) {
                if (read_file_at(AT_FDCWD, "/proc/cpuinfo", CPUINFO_MAX, &cpuinfo, NULL) < 0)
                        return "/proc/cpuinfo cannot be read";
                if (!strstr(cpuinfo, " vmx") && !strstr(cpuinfo, " svm"))
                        return "the processor shows neither vmx nor svm";
        }
#endif
        return NULL;
}

static char* find_program(void) {
        static const char *const candidates[] = {
                "/usr/bin/qemu-system-x86_64",
                "/usr/local/bin/qemu-system-x86_64",
                "/usr/libexec/qemu-kvm",
        };

        for (size_t i = 0; i < ELEMENTSOF(candidates); i++)
                if (access(candidates[i], X_OK) >= 0)
                        return strdup(candidates[i]);
        return NULL;
}

static void forget_files(VmmProbe *p) {
        p->files = strv_free(p->files);
        p->jail_args = strv_free(p->jail_args);
        p->stamp = (free(p->stamp), NULL);
}

void vmm_probe_refresh(VmmProbe *p) {
        p->kvm_problem = find_kvm_problem(p->manager->config.accelerator);
        free(p->program);
        p->program = find_program();
        forget_files(p);
}

int vmm_probe_new(Manager *m, VmmProbe **ret) {
        VmmProbe *p = calloc(1, sizeof(VmmProbe));

        if (!p)
                return -ENOMEM;

        p->manager = m;
        p->launcher = strjoin(m->lib_dir, "/wrenn-launch");
        p->monitor = strjoin(m->lib_dir, "/wrenn-monitor");
        if (!p->launcher || !p->monitor) {
                vmm_probe_free(p);
                return -ENOMEM;
        }

        p->tsc_first = read_tsc();
        p->tsc_first_nsec = raw_nsec();
        vmm_probe_refresh(p);
        *ret = p;
        return 0;
}

VmmProbe* vmm_probe_free(VmmProbe *p) {
        if (!p)
                return NULL;

        forget_files(p);
        free(p->program);
        free(p->launcher);
        free(p->monitor);
        free(p);
        return NULL;
}

int accelerator_choose(const Config *c, bool has_program, const char *kvm_problem, Accelerator *ret,
                       Fault *reterr) {
        if (c->backend == BACKEND_FIRECRACKER)
                return fault_set(reterr, FAULT_BACKEND_UNAVAILABLE,
                                 "Backend=firecracker: this version drives QEMU only; set Backend=qemu.");
        if (!has_program)
                return fault_set(
                                reterr, FAULT_BACKEND_UNAVAILABLE,
                                "No virtual machine monitor is installed. Remedy: apt install qemu-system-x86, then "
                                "systemctl reload wrennd.");

        if (c->accelerator != ACCELERATOR_TCG && !kvm_problem) {
                *ret = ACCELERATOR_KVM;
                return 0;
        }
        if (c->accelerator == ACCELERATOR_KVM)
                return fault_set(reterr, FAULT_NO_KVM, "Accelerator=kvm is configured, but %s.",
                                 kvm_problem);
        if (!c->allow_emulation)
                return fault_set(
                                reterr, FAULT_NO_KVM,
                                "This host cannot isolate capsules: %s. Emulation would run them, but isolates nothing. Remedy: a "
                                "host with hardware virtualization; or, for trying out with code you trust, AllowEmulation=yes "
                                "below [Daemon] in " CONFDIR "/wrennd.conf, then: systemctl reload wrennd",
                                kvm_problem ?: "Accelerator=tcg is configured");

        *ret = ACCELERATOR_TCG;
        return 0;
}

int vmm_choose_accelerator(VmmProbe *p, Accelerator *ret, Fault *reterr) {
        return accelerator_choose(&p->manager->config, p->program != NULL, p->kvm_problem, ret, reterr);
}

/* The file list for the jail, computed again when one of the files changed. */
static int refresh_files(VmmProbe *p, Accelerator a, Fault *reterr) {
        _cleanup_free_ char *stamp = NULL;
        int r;

        if (p->files) {
                stamp = vmm_files_stamp(p->files);
                if (p->files_for == a && streq_ptr(stamp, p->stamp))
                        return 0;
                forget_files(p);
        }

        r = program_files(p->monitor, &p->files, reterr);
        if (r >= 0)
                r = vmm_files_qemu(p->program, accelerator_to_string(a), &p->files, reterr);
        if (r >= 0)
                r = vmm_files_to_args(p->files, &p->jail_args);
        if (r >= 0) {
                p->stamp = vmm_files_stamp(p->files);
                r = p->stamp ? 0 : -ENOMEM;
        }
        if (r < 0) {
                forget_files(p);
                return fault_set(reterr, FAULT_BACKEND_UNAVAILABLE,
                                 "Cannot tell which files the VMM needs.");
        }

        p->files_for = a;
        return 0;
}

int vmm_choose(VmmProbe *p, VmmChoice *ret, Fault *reterr) {
        Accelerator a;
        int r;

        r = vmm_choose_accelerator(p, &a, reterr);
        if (r >= 0)
                r = refresh_files(p, a, reterr);
        if (r < 0)
                return r;

        *ret = (VmmChoice) {
                .accelerator = a,
                .program = p->program,
                .launcher = p->launcher,
                .monitor = p->monitor,
                .jail_args = p->jail_args,
        };
        return 0;
}

char** vmm_backends(VmmProbe *p) {
        _cleanup_strv_ char **v = NULL;
        int r = 0;

        if (p->program && p->manager->config.backend != BACKEND_FIRECRACKER) {
                if (!p->kvm_problem && p->manager->config.accelerator != ACCELERATOR_TCG)
                        r = strv_extend(&v, "qemu:kvm");
                if (r >= 0 && p->manager->config.allow_emulation &&
                    p->manager->config.accelerator != ACCELERATOR_KVM)
                        r = strv_extend(&v, "qemu:tcg");
        }
        return r < 0 ? NULL : TAKE_PTR(v);
}

const char* vmm_isolation(VmmProbe *p) {
        Accelerator a;

        if (vmm_choose_accelerator(p, &a, NULL) < 0)
                return "none";
        return a == ACCELERATOR_KVM ? "hardware" : "emulated";
}

int vmm_find_kernel(VmmProbe *p, char **ret_kernel, char **ret_initrd, Fault *reterr) {
        static const char *const names[] = { "vmlinux", "vmlinuz" };
        _cleanup_free_ char *dir = strjoin(p->manager->state_dir, "/kernels/current"), *initrd = NULL;

        initrd = dir ? strjoin(dir, "/initrd") : NULL;
        if (!initrd)
                return fault_set_errno(reterr, ENOMEM, "Failed to look for a kernel");

        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                _cleanup_free_ char *kernel = strjoin(dir, "/", names[i]);

                if (!kernel)
                        return fault_set_errno(reterr, ENOMEM, "Failed to look for a kernel");
                if (access(kernel, R_OK) < 0 || access(initrd, R_OK) < 0)
                        continue;
                *ret_kernel = TAKE_PTR(kernel);
                *ret_initrd = TAKE_PTR(initrd);
                return 0;
        }

        return fault_set(
                        reterr, FAULT_BACKEND_UNAVAILABLE,
                        "There is no guest kernel yet. Remedy: wrennctl build-template minimal, which prepares one.");
}

uint64_t vmm_tsc_khz(VmmProbe *p) {
        uint64_t nsec, khz;

        if (p->tsc_khz > 0 || p->tsc_first == 0)
                return p->tsc_khz;

        nsec = raw_nsec() - p->tsc_first_nsec;
        if (nsec == 0)
                return 0;
        khz = (uint64_t) ((__uint128_t) (read_tsc() - p->tsc_first) * 1000000U / nsec);
        if (nsec >= TSC_BASE_USEC * NSEC_PER_USEC)
                p->tsc_khz = khz;
        return khz;
}
