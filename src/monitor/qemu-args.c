/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What each part is for stands beside it; figures in performance notes of the project. Emulation (tcg) is
 * slow and isolates nothing, so there the mitigations against other guests are left out and the guest is
 * told the host's TSC rate, which it cannot measure reliably.
 */

#include <inttypes.h>

#include "basic/strings.h"
#include "monitor/vmm.h"

#define TCG_CACHE_MIB    32 /* below this the translation cache thrashes */
#define DISK_THREADS_MAX 4  /* counted by the scope's TasksMax */

static bool is_tcg(const VmmConfig *c) {
        return streq(c->accelerator, "tcg");
}

/* The self-tests of the crypto code are a seventh of an emulated boot; expedited grace periods speed up
 * mounts and modules. */
#define KERNEL_LINE_COMMON                                                                     \
        "console=ttyS0 quiet loglevel=0 panic=-1 reboot=t 8250.nr_uarts=1 random.trust_cpu=on" \
        " cryptomgr.notests rcupdate.rcu_expedited=1"

char* qemu_kernel_line(const VmmConfig *c) {
        _cleanup_free_ char *tsc = NULL;

        if (!is_tcg(c))
                return strjoin(KERNEL_LINE_COMMON);

        /*
         * A guest with neither PIT nor PIC hangs calibrating its TSC in some boots unless it is told the
         * rate. And unless it is told to trust the TSC it has no clock but jiffies: 4 ms steps, no high
         * resolution timers, a tick in idle.
         */
        if (c->tsc_khz > 0) {
                tsc = asprintf_null(" tsc_early_khz=%" PRIu64, c->tsc_khz);
                if (!tsc)
                        return NULL;
        }
        return strjoin(KERNEL_LINE_COMMON " no_timer_check mitigations=off nokaslr tsc=reliable",
                       strempty(tsc));
}

static int add(char ***v, const char *option, const char *value) {
        int r = strv_extend(v, option);

        return r < 0 || !value ? r : strv_extend(v, value);
}

static int add_machine(char ***v, const VmmConfig *c) {
        static const char *const common[][2] = {
                { "-nodefaults", NULL },
                { "-no-user-config", NULL },
                { "-display", "none" },
                { "-no-reboot", NULL },
                { "-L", "/usr/share/qemu" }, /* without /proc it cannot find its own directory */
                /* PIT and PIC are slow to emulate and to probe; virtio devices are found through ACPI */
                { "-machine",
                  "microvm,acpi=on,x-option-roms=off,pit=off,pic=off,rtc=on,dump-guest-core=off" },
                { "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny" },
                { "-rtc", "base=utc" },
        };
        int r = 0;

        for (size_t i = 0; i < ELEMENTSOF(common) && r >= 0; i++)
                r = add(v, common[i][0], common[i][1]);
        if (r < 0)
                return r;

        if (is_tcg(c)) {
                /* split-wx: memory is never writable and executable at once; arat: no 250 Hz tick in an idle
                 * guest */
                r = add(v, "-accel", "tcg,split-wx=on,tb-size=" STRINGIFY(TCG_CACHE_MIB));
                if (r >= 0)
                        r = add(v, "-cpu", "qemu64,+arat,+rdrand");
        } else {
                r = add(v, "-accel", "kvm");
                if (r >= 0)
                        r = add(v, "-cpu", "host");
        }
        if (r >= 0)
                r = add(v, "-smp", NULL);
        if (r >= 0)
                r = strv_extendf(v, "%" PRIu32, c->vcpus);
        if (r >= 0)
                r = add(v, "-m", NULL);
        if (r >= 0)
                r = strv_extendf(v, "%" PRIu64 "B", c->memory_bytes);
        if (r >= 0)
                r = add(v, "-object", "main-loop,id=loop,thread-pool-max=" STRINGIFY(DISK_THREADS_MAX));
        return r;
}

static int add_kernel(char ***v, const VmmConfig *c) {
        _cleanup_free_ char *line = qemu_kernel_line(c);
        int r;

        if (!line)
                return -ENOMEM;
        r = add(v, "-kernel", c->kernel);
        if (r >= 0)
                r = add(v, "-initrd", c->initrd);
        return r < 0 ? r : add(v, "-append", line);
}

static int add_socket(char ***v, const char *id, int fd) {
        int r = strv_extend(v, "-chardev");

        return r < 0 ? r : strv_extendf(v, "socket,id=%s,fd=%i", id, fd);
}

/* Control, console and agent port: connected sockets made by the monitor, nothing in the file system. */
static int add_streams(char ***v, const QemuFds *fds) {
        static const char *const devices[][2] = {
                { "-mon", "chardev=qmp,mode=control" },
                { "-serial", "chardev:console" },
                { "-device", "virtio-serial-device,max_ports=2" },
                { "-device", "virtserialport,chardev=agent,nr=1,name=" AGENT_PORT_NAME },
        };
        int r;

        r = add_socket(v, "qmp", fds->qmp);
        if (r >= 0)
                r = add_socket(v, "console", fds->console);
        if (r >= 0)
                r = add_socket(v, "agent", fds->agent);
        for (size_t i = 0; i < ELEMENTSOF(devices) && r >= 0; i++)
                r = add(v, devices[i][0], devices[i][1]);
        return r;
}

/*
 * Always raw: a guest that writes another format's header must not make the VMM follow it. A full disk of
 * the host stops the guest instead of failing its writes; an error of the host's disk reaches the guest.
 */
static int add_disk(char ***v, size_t i, const VmmDisk *d) {
        static const char *const serials[] = { "base", "layer" };
        int r;

        r = strv_extend(v, "-drive");
        if (r >= 0)
                r = strv_extendf(v, "if=none,id=disk%zu,file=%s,format=raw,aio=threads,%s", i, d->path,
                                 d->read_only ? "readonly=on,file.locking=off"
                                              : "discard=unmap,werror=enospc,rerror=report");
        if (r >= 0)
                r = strv_extend(v, "-device");
        if (r < 0)
                return r;
        if (i < ELEMENTSOF(serials))
                return strv_extendf(v, "virtio-blk-device,drive=disk%zu,serial=%s", i, serials[i]);
        return strv_extendf(v, "virtio-blk-device,drive=disk%zu,serial=disk%zu", i, i);
}

static int add_network(char ***v, const VmmConfig *c, int tap_fd) {
        int r;

        r = strv_extend(v, "-netdev");
        if (r >= 0)
                r = strv_extendf(v, "tap,id=net0,fd=%i", tap_fd);
        if (r >= 0)
                r = strv_extend(v, "-device");
        return r < 0 ? r : strv_extendf(v, "virtio-net-device,netdev=net0,mac=%s", c->mac ?: GUEST_MAC);
}

char** qemu_command_line(const VmmConfig *c, const QemuFds *fds) {
        _cleanup_strv_ char **v = NULL;
        int r;

        r = strv_extend(&v, c->vmm);
        if (r >= 0)
                r = add_machine(&v, c);
        if (r >= 0)
                r = add_kernel(&v, c);
        if (r >= 0)
                r = add_streams(&v, fds);
        for (size_t i = 0; i < c->n_disks && r >= 0; i++)
                r = add_disk(&v, i, c->disks + i);
        if (r >= 0 && fds->tap >= 0)
                r = add_network(&v, c, fds->tap);
        return r < 0 ? NULL : TAKE_PTR(v);
}
