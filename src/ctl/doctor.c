/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* doctor: what this host lacks to run capsules, each finding with its remedy; version. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/statvfs.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "ctl/ctl.h"
#include "shared/json-field.h"

#define DISK_LOW_BYTES (2 * GIB)

typedef enum Finding {
        FINDING_OK,
        FINDING_NOTE,    /* works, with a drawback */
        FINDING_PROBLEM, /* capsules cannot be created, or not safely */
        _FINDING_MAX,
} Finding;

static const char *const finding_names[_FINDING_MAX] = { "ok", "note", "PROBLEM" };

typedef struct Doctor {
        Ctl *ctl;
        json_t *manager; /* its properties, or NULL when wrennd does not answer */
        char text[512];  /* what was found, and the remedy */
} Doctor;

typedef struct Check {
        const char *name;
        Finding (*function)(Doctor *d);
} Check;

static bool file_says(const char *path, const char *text) {
        _cleanup_free_ char *content = NULL;

        return read_file_at(AT_FDCWD, path, 64 * KIB, &content, NULL) >= 0 && strstr(content, text);
}

static Finding say(Doctor *d, Finding finding, const char *format, ...) _printf_(3, 4);
static Finding say(Doctor *d, Finding finding, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(d->text, sizeof(d->text), format, ap);
        va_end(ap);
        return finding;
}

static Finding check_service(Doctor *d) {
        if (d->manager)
                return say(d, FINDING_OK, "wrennd %s answers on the bus",
                           property_string(d->manager, "Version"));
        return say(d, FINDING_PROBLEM,
                   "wrennd does not answer on the bus. Remedy: systemctl status wrennd; journalctl -u wrennd -n 50");
}

static bool cpu_virtualizes(void) {
        _cleanup_free_ char *cpuinfo = NULL;

        if (read_file_at(AT_FDCWD, "/proc/cpuinfo", 4 * MIB, &cpuinfo, NULL) < 0)
                return false;
        return strstr(cpuinfo, " vmx") || strstr(cpuinfo, " svm");
}

static Finding check_kvm(Doctor *d) {
        bool emulated = d->manager && streq(property_string(d->manager, "Isolation"), "emulated");
        _cleanup_close_ int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

        if (fd >= 0 && cpu_virtualizes())
                return say(d, FINDING_OK, "hardware virtualization works");
        if (emulated)
                return say(d, FINDING_NOTE,
                           "no hardware virtualization: capsules are emulated, which is slow and no security boundary "
                           "(AllowEmulation=yes is set)");
        if (fd >= 0)
                return say(d, FINDING_PROBLEM,
                           "/dev/kvm opens but the CPU shows neither vmx nor svm. Remedy: switch virtualization on in the "
                           "firmware or the outer hypervisor, or set AllowEmulation=yes in " CONFDIR
                           "/wrennd.conf (no "
                           "security boundary)");
        return say(d, FINDING_PROBLEM,
                   "/dev/kvm cannot be opened: %s. Remedy: modprobe kvm_intel or kvm_amd, or set AllowEmulation=yes in " CONFDIR
                   "/wrennd.conf (no security boundary)",
                   strerror(errno));
}

static Finding check_vmm(Doctor *d) {
        if (access("/usr/bin/qemu-system-x86_64", X_OK) >= 0)
                return say(d, FINDING_OK, "/usr/bin/qemu-system-x86_64 is installed");
        return say(d, FINDING_PROBLEM, "no VMM. Remedy: apt install qemu-system-x86");
}

static Finding check_tools(Doctor *d) {
        static const struct {
                const char *path, *package, *purpose;
        } tools[] = {
                { "/usr/bin/mmdebstrap", "mmdebstrap", "build-template" },
                { "/usr/bin/mkfs.erofs", "erofs-utils", "templates" },
                { "/sbin/mke2fs", "e2fsprogs", "the capsules' layers" },
                { "/usr/sbin/dnsmasq", "dnsmasq-base", "names inside capsules" },
        };

        for (size_t i = 0; i < ELEMENTSOF(tools); i++)
                if (access(tools[i].path, X_OK) < 0)
                        return say(d, FINDING_PROBLEM,
                                   "%s is missing, needed for %s. Remedy: apt install %s", tools[i].path,
                                   tools[i].purpose, tools[i].package);
        return say(d, FINDING_OK, "mmdebstrap, mkfs.erofs, mke2fs and dnsmasq are installed");
}

static Finding check_template(Doctor *d) {
        _cleanup_json_ json_t *templates = NULL;

        if (!d->manager || ctl_objects(d->ctl, TEMPLATE_INTERFACE, &templates) != 0)
                return say(d, FINDING_NOTE, "not checked: wrennd does not answer");
        if (json_array_size(templates) == 0)
                return say(d, FINDING_PROBLEM,
                           "there is no template. Remedy: wrennctl build-template minimal");
        return say(d, FINDING_OK, "%zu template%s", json_array_size(templates),
                   json_array_size(templates) == 1 ? "" : "s");
}

static Finding check_cgroups(Doctor *d) {
        if (access("/sys/fs/cgroup/cgroup.controllers", R_OK) >= 0) {
                static const char *const needed[] = { "memory", "pids", "cpu" };

                for (size_t i = 0; i < ELEMENTSOF(needed); i++)
                        if (!file_says("/sys/fs/cgroup/cgroup.controllers", needed[i]))
                                return say(d, FINDING_PROBLEM,
                                           "the cgroup controller %s is off. Remedy: remove cgroup_disable= from the kernel's "
                                           "command line",
                                           needed[i]);
                return say(d, FINDING_OK, "cgroup v2 with memory, pids and cpu");
        }
        if (access("/sys/fs/cgroup/memory", X_OK) >= 0 && access("/sys/fs/cgroup/pids", X_OK) >= 0)
                return say(d, FINDING_NOTE,
                           "cgroup v1: limits hold, but the OOM policy and pressure figures of v2 are missing. Remedy: boot with "
                           "systemd.unified_cgroup_hierarchy=1");
        return say(d, FINDING_PROBLEM,
                   "no cgroup memory and pids controllers: limits would not be enforced");
}

static Finding check_forwarding(Doctor *d) {
        if (file_says("/proc/sys/net/ipv4/ip_forward", "1"))
                return say(d, FINDING_OK, "IPv4 forwarding is on");
        return say(d, FINDING_PROBLEM,
                   "IPv4 forwarding is off: capsules have no network. Remedy: sysctl --system, and see what sets "
                   "net.ipv4.ip_forward=0 below /etc/sysctl.d");
}

static Finding check_dns(Doctor *d) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_free_ char *state = NULL;
        const char *path;

        if (ctl_bus(d->ctl) < 0 ||
            sd_bus_call_method(d->ctl->bus, "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
                               "org.freedesktop.systemd1.Manager", "LoadUnit", &error, &reply, "s",
                               "wrenn-dns.service") < 0)
                return say(d, FINDING_PROBLEM, "systemd does not answer: %s", strempty(error.message));
        if (sd_bus_message_read(reply, "o", &path) < 0 ||
            sd_bus_get_property_string(d->ctl->bus, "org.freedesktop.systemd1", path,
                                       "org.freedesktop.systemd1.Unit", "ActiveState", &error, &state) < 0)
                return say(d, FINDING_PROBLEM,
                           "wrenn-dns.service is not known to systemd. Remedy: systemctl daemon-reload");
        if (streq(state, "active"))
                return say(d, FINDING_OK, "wrenn-dns.service runs");
        return say(d, FINDING_PROBLEM,
                   "wrenn-dns.service is %s: capsules resolve no names. Remedy: systemctl status wrenn-dns",
                   state);
}

static Finding check_firewall(Doctor *d) {
        if (access("/usr/sbin/firewalld", X_OK) >= 0 && access("/run/firewalld", F_OK) >= 0)
                return say(d, FINDING_NOTE,
                           "firewalld runs: it may drop forwarded packets of capsules. Remedy: firewall-cmd --permanent --zone=trusted "
                           "--add-interface=wv-+ && firewall-cmd --reload");
        if (access("/var/run/docker.sock", F_OK) >= 0)
                return say(d, FINDING_NOTE,
                           "docker sets the iptables FORWARD policy to DROP. Remedy, if capsules have no network: iptables -I DOCKER-USER "
                           "-i wv-+ -j ACCEPT; iptables -I DOCKER-USER -o wv-+ -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
        return say(d, FINDING_OK, "no other firewall manager found");
}

static Finding check_yama(Doctor *d) {
        _cleanup_free_ char *scope = NULL;

        if (read_file_at(AT_FDCWD, "/proc/sys/kernel/yama/ptrace_scope", 64, &scope, NULL) < 0 ||
            scope[0] == '0' || scope[0] == '1')
                return say(d, FINDING_OK, "a monitor may read its own VMM");
        return say(d, FINDING_NOTE,
                   "kernel.yama.ptrace_scope is %c: pausing will take the slow path. Remedy: sysctl kernel.yama.ptrace_scope=1",
                   scope[0]);
}

static Finding check_disk(Doctor *d) {
        char buffer[FORMAT_SIZE_LEN];
        struct statvfs s;
        uint64_t bytes;

        if (statvfs(STATEDIR, &s) < 0)
                return errno == EACCES ? say(d, FINDING_NOTE, "not checked: only root sees " STATEDIR)
                                       : say(d, FINDING_PROBLEM,
                                             STATEDIR ": %s. Remedy: systemctl start wrennd",
                                             strerror(errno));
        bytes = (uint64_t) s.f_bavail * s.f_frsize;
        if (bytes < DISK_LOW_BYTES)
                return say(d, FINDING_PROBLEM,
                           "only %s free in " STATEDIR
                           ". Remedy: wrennctl list-templates and remove what is not needed",
                           format_size(buffer, bytes));
        return say(d, FINDING_OK, "%s free in " STATEDIR, format_size(buffer, bytes));
}

/* Everything but looking asks polkit, and the bus lets nobody through without our policy. */
static Finding check_permissions(Doctor *d) {
        static const char bus_policy[] = "/usr/share/dbus-1/system.d/" BUS_NAME ".conf",
                          actions[] = "/usr/share/polkit-1/actions/dev.wrenn.capsules1.policy",
                          polkit[] = "/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service";

        if (access(bus_policy, R_OK) < 0)
                return say(d, FINDING_PROBLEM,
                           "%s is not there: the bus refuses every call. Remedy: install wrennd again",
                           bus_policy);
        if (access(polkit, R_OK) < 0)
                return say(d, FINDING_NOTE,
                           "polkit is not installed: only root may change anything. Remedy: apt install polkitd");
        if (access(actions, R_OK) < 0)
                return say(d, FINDING_NOTE,
                           "%s is not there: only root may change anything. Remedy: install wrennd again",
                           actions);
        return say(d, FINDING_OK, "bus policy and polkit actions are installed");
}

static Finding check_rest(Doctor *d) {
        if (access(RUNDIR "/api.sock", F_OK) >= 0)
                return say(d, FINDING_OK, RUNDIR "/api.sock is there");
        return say(d, FINDING_NOTE,
                   "the REST socket is not there. Remedy: systemctl enable --now wrenn-restd.socket wrenn-restd-tcp.socket");
}

int verb_doctor(Ctl *ctl, char **arguments) {
        static const Check checks[] = {
                { "service", check_service }, { "permissions", check_permissions },
                { "kvm", check_kvm },         { "vmm", check_vmm },
                { "tools", check_tools },     { "templates", check_template },
                { "cgroups", check_cgroups }, { "forwarding", check_forwarding },
                { "dns", check_dns },         { "firewall", check_firewall },
                { "ptrace", check_yama },     { "disk", check_disk },
                { "rest", check_rest },
        };
        static const Column columns[] = {
                { "CHECK", "Check", COLUMN_TEXT },
                { "RESULT", "Result", COLUMN_TEXT },
                { "DETAIL", "Detail", COLUMN_TEXT },
                {},
        };
        _cleanup_json_ json_t *rows = json_array();
        Doctor d = { .ctl = ctl };
        Finding worst = FINDING_OK;
        int r;

        if (ctl_bus(ctl) >= 0)
                (void) ctl_properties(ctl, BUS_PATH, MANAGER_INTERFACE, &d.manager);
        for (size_t i = 0; i < ELEMENTSOF(checks); i++) {
                Finding f = checks[i].function(&d);

                worst = MAX(worst, f);
                if (json_array_append_new(rows, json_pack("{ss ss ss}", "Check", checks[i].name, "Result",
                                                          finding_names[f], "Detail", d.text)) < 0)
                        return log_error_errno(ENOMEM, "Failed to print: %m");
        }
        json_decref(d.manager);
        r = table_print(&ctl->options, rows, columns, "check");
        return r < 0 ? r : worst == FINDING_PROBLEM ? EXIT_FAILURE : 0;
}

int verb_version(Ctl *ctl, char **arguments) {
        _cleanup_json_ json_t *manager = NULL;

        printf("wrennctl %s\n", WRENN_VERSION);
        if (ctl && ctl_bus(ctl) >= 0 && ctl_properties(ctl, BUS_PATH, MANAGER_INTERFACE, &manager) == 0)
                printf("wrennd %s\n", property_string(manager, "Version"));
        return 0;
}
