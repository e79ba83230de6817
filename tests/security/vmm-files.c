/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* vmm-files ACCELERATOR VMM PROGRAM…: prints the launcher arguments wrennd would use, one a line. */

#include <stdio.h>

#include "basic/strings.h"
#include "daemon/host/vmm-files.h"

int main(int argc, char **argv) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_strv_ char **paths = NULL, **args = NULL;
        int r = 0;

        if (argc < 3)
                return 2;
        for (int i = 2; i < argc && r >= 0; i++)
                r = strstr(argv[i], "qemu-system-") ? vmm_files_qemu(argv[i], argv[1], &paths, &fault)
                                                    : program_files(argv[i], &paths, &fault);
        if (r >= 0)
                r = vmm_files_to_args(paths, &args);
        if (r < 0) {
                fprintf(stderr, "%s\n", strempty(fault.message));
                return 1;
        }
        STRV_FOREACH(a, args)
                puts(*a);
        return 0;
}
