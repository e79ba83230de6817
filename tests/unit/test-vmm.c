/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/strings.h"
#include "daemon/core/vmm.h"
#include "tests/unit/test.h"

#define PROBLEM "there is no /dev/kvm"

/* Emulation is never a silent way out: neither for a host without KVM nor for one that shall not use it. */
TEST(accelerators) {
        static const struct {
                Config config;
                bool program;
                const char *kvm_problem;
                int r;
                Accelerator chosen;
                const char *message; /* a part of it */
        } cases[] = {
                { { .accelerator = ACCELERATOR_AUTO }, true, NULL, 0, ACCELERATOR_KVM, NULL },
                { { .accelerator = ACCELERATOR_AUTO, .allow_emulation = true },
                  true,
                  NULL,
                  0,
                  ACCELERATOR_KVM,
                  NULL },
                { { .accelerator = ACCELERATOR_AUTO }, true, PROBLEM, -ENODEV, 0, PROBLEM },
                { { .accelerator = ACCELERATOR_AUTO }, true, PROBLEM, -ENODEV, 0, "AllowEmulation=yes" },
                { { .accelerator = ACCELERATOR_AUTO, .allow_emulation = true },
                  true,
                  PROBLEM,
                  0,
                  ACCELERATOR_TCG,
                  NULL },
                { { .accelerator = ACCELERATOR_KVM }, true, NULL, 0, ACCELERATOR_KVM, NULL },
                { { .accelerator = ACCELERATOR_KVM },
                  true,
                  PROBLEM,
                  -ENODEV,
                  0,
                  "Accelerator=kvm is configured, but " PROBLEM },
                { { .accelerator = ACCELERATOR_KVM, .allow_emulation = true },
                  true,
                  PROBLEM,
                  -ENODEV,
                  0,
                  "Accelerator=kvm" },
                { { .accelerator = ACCELERATOR_TCG },
                  true,
                  NULL,
                  -ENODEV,
                  0,
                  "Accelerator=tcg is configured" },
                { { .accelerator = ACCELERATOR_TCG, .allow_emulation = true },
                  true,
                  NULL,
                  0,
                  ACCELERATOR_TCG,
                  NULL },
                { { .accelerator = ACCELERATOR_AUTO, .allow_emulation = true },
                  false,
                  NULL,
                  -EHOSTDOWN,
                  0,
                  "apt install" },
                { { .backend = BACKEND_FIRECRACKER }, true, NULL, -EHOSTDOWN, 0, "Backend=qemu" },
                { { .backend = BACKEND_QEMU }, true, NULL, 0, ACCELERATOR_KVM, NULL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                Accelerator chosen = _ACCELERATOR_INVALID;

                ASSERT_EQ(accelerator_choose(&cases[i].config, cases[i].program, cases[i].kvm_problem,
                                             &chosen, &fault),
                          cases[i].r);
                if (cases[i].r < 0)
                        ASSERT_NOT_NULL(strstr(fault.message, cases[i].message));
                else
                        ASSERT_EQ(chosen, cases[i].chosen);
        }
}

/* Of the host this runs on: what the probe says of itself fits together. */
TEST(isolation) {
        _cleanup_(config_done) Config config = {};
        Manager m = { .lib_dir = (char *) "/nonexistent" };
        Accelerator chosen;
        VmmProbe *p = NULL;

        ASSERT_EQ(config_init(&config), 0);
        m.config = config;
        m.config.allow_emulation = true;
        ASSERT_EQ(vmm_probe_new(&m, &p), 0);
        if (vmm_choose_accelerator(p, &chosen, NULL) < 0)
                ASSERT_STREQ(vmm_isolation(p), "none");
        else
                ASSERT_STREQ(vmm_isolation(p), chosen == ACCELERATOR_KVM ? "hardware" : "emulated");

        m.config.accelerator = ACCELERATOR_TCG;
        m.config.allow_emulation = false;
        vmm_probe_refresh(p);
        ASSERT_STREQ(vmm_isolation(p), "none");
        vmm_probe_free(p);
}
