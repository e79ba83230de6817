/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What this host can run a capsule with: VMM program and its files for the jail, accelerator (architecture
 * decisions 2 to 4), guest kernel, speed of the time stamp counter. Looked at when the program starts and
 * when the configuration or a file changed.
 */

#include "basic/fault.h"
#include "daemon/core/manager.h"

/* How to run the next one. All borrowed from the probe, until the loop turns. */
typedef struct VmmChoice {
        Accelerator accelerator;
        const char *program; /* absolute path, outside and inside of the jail */
        const char *launcher, *monitor;
        char *const *jail_args; /* "--bind-ro=…" of program and monitor with all they load */
} VmmChoice;

/* 0, or -ENOMEM. What is missing is told by vmm_choose(). */
int vmm_probe_new(Manager *m, VmmProbe **ret);
VmmProbe* vmm_probe_free(VmmProbe *p);
/* Looks again, e.g. after a reload. */
void vmm_probe_refresh(VmmProbe *p);

/* FAULT_NO_KVM (with the remedy), FAULT_BACKEND_UNAVAILABLE (a program is missing). */
int vmm_choose(VmmProbe *p, VmmChoice *ret, Fault *reterr);
/* The rule: what the configuration wants of a host that has a VMM program or not, and KVM unless kvm_problem
 * says why not. Faults as vmm_choose(). */
int accelerator_choose(const Config *c, bool has_program, const char *kvm_problem, Accelerator *ret,
                       Fault *reterr);
/* Which of them a capsule would get, without looking at files: for admission. */
int vmm_choose_accelerator(VmmProbe *p, Accelerator *ret, Fault *reterr);

/* Usable now, best first, "qemu:kvm" …; NULL when none or on out of memory. The caller's. */
char** vmm_backends(VmmProbe *p);
/* "hardware", "emulated" or "none". */
const char* vmm_isolation(VmmProbe *p);

/* Paths of the guest's kernel and initrd, the caller's. FAULT_BACKEND_UNAVAILABLE (with the remedy) when
 * there is none. */
int vmm_find_kernel(VmmProbe *p, char **ret_kernel, char **ret_initrd, Fault *reterr);

/* The time stamp counter's rate for tsc_early_khz=, measured between the start of the program and now; 0
 * where there is none. */
uint64_t vmm_tsc_khz(VmmProbe *p);
