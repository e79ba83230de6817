/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "agent/identity.h"
#include "agent/network.h"
#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "shared/json-field.h"
#include "shared/protocol.h"

#define HOSTNAME_LEN_MAX 64U
#define ETC_FILE_MAX     (64 * KIB)

static const char *const features[] = { "identity", "processes", "files", "attach",
                                        "signal",   "stdin",     "pty",   "poweroff" };

/* Body of PUT /identity before it is applied. */
typedef struct IdentityChange {
        char *id, *template, *hostname, *default_user;
        char **env;
        bool has_env;
        uint64_t realtime_usec;
        char *entropy; /* base64 */
        char *address, *gateway;
        char **dns;
} IdentityChange;

void identity_done(Identity *i) {
        free(i->id);
        free(i->template);
        free(i->hostname);
        free(i->default_user);
        strv_free(i->env);
        strv_free(i->process_env);
        *i = (Identity) {};
}

static void change_done(IdentityChange *c) {
        free(c->id);
        free(c->template);
        free(c->hostname);
        free(c->default_user);
        strv_free(c->env);
        free(c->entropy);
        free(c->address);
        free(c->gateway);
        strv_free(c->dns);
}

/* files */

/* In place of whatever is there, also of a link that leads nowhere; unchanged files are not written. */
static int write_etc(const char *name, const char *text) {
        _cleanup_close_ int dir_fd = -EBADF;
        _cleanup_free_ char *old = NULL;
        struct stat st;

        dir_fd = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir_fd < 0 && errno == ENOENT && mkdir("/etc", 0755) >= 0)
                dir_fd = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir_fd < 0)
                return -errno;

        if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) >= 0 && S_ISREG(st.st_mode) &&
            read_file_at(dir_fd, name, ETC_FILE_MAX, &old, NULL) >= 0 && streq(old, text))
                return 0;

        (void) unlinkat(dir_fd, name, 0);
        {
                _cleanup_close_ int fd = openat(dir_fd, name,
                                                O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);

                if (fd < 0)
                        return -errno;
                return write_all(fd, text, strlen(text));
        }
}

/* True when a line of hosts(5) has the name. */
static bool hosts_has(const char *text, const char *hostname) {
        _cleanup_strv_ char **words = strv_split(text, " \t\n");

        return strv_contains(words, hostname);
}

static int write_hosts(const char *hostname) {
        _cleanup_free_ char *old = NULL, *text = NULL;
        struct stat st;

        if (stat("/etc/hosts", &st) >= 0 && S_ISREG(st.st_mode))
                (void) read_file_at(AT_FDCWD, "/etc/hosts", ETC_FILE_MAX, &old, NULL);
        if (isempty(old))
                text = strjoin("127.0.0.1\tlocalhost\n127.0.0.1\t", hostname,
                               "\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        else if (hosts_has(old, hostname))
                return 0;
        else
                text = strjoin(old, endswith(old, "\n") ? "" : "\n", "127.0.0.1\t", hostname, "\n");

        return text ? write_etc("hosts", text) : -ENOMEM;
}

static int write_resolv(char *const *dns) {
        _cleanup_free_ char *text = NULL;
        size_t n = 0;

        STRV_FOREACH(server, dns) {
                char *longer;

                if (n++ >= IDENTITY_DNS_MAX)
                        break;
                longer = strjoin(strempty(text), "nameserver ", *server, "\n");
                if (!longer)
                        return -ENOMEM;
                free(text);
                text = longer;
        }

        return text ? write_etc("resolv.conf", text) : 0;
}

static void write_marker(const char *name, const char *value) {
        _cleanup_free_ char *path = strjoin("/run/wrenn/", name);
        _cleanup_close_ int fd = -EBADF;

        if (!path)
                return;

        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0644);
        if (fd >= 0)
                (void) write_all(fd, value, strlen(value));
}

/* the guest's own state */

static int process_env_build(Identity *i) {
        _cleanup_strv_ char **env = NULL;
        int r;

        r = strv_extend(&env, "WRENN_SANDBOX=true");
        if (r >= 0 && i->id)
                r = strv_extendf(&env, "WRENN_SANDBOX_ID=%s", i->id);
        if (r >= 0 && i->template)
                r = strv_extendf(&env, "WRENN_TEMPLATE_ID=%s", i->template);
        STRV_FOREACH(e, i->env)
                if (r >= 0)
                        r = strv_extend(&env, *e);
        if (r < 0)
                return r;

        strv_free(i->process_env);
        i->process_env = TAKE_PTR(env);
        return 0;
}

static void write_markers(const Identity *i) {
        (void) mkdir("/run/wrenn", 0755);
        write_marker(".WRENN_SANDBOX", "true");
        if (i->id)
                write_marker(".WRENN_SANDBOX_ID", i->id);
        if (i->template)
                write_marker(".WRENN_TEMPLATE_ID", i->template);
}

static int hostname_apply(const char *hostname) {
        if (sethostname(hostname, strlen(hostname)) < 0)
                return -errno;

        return write_hosts(hostname);
}

static void clock_step(uint64_t realtime_usec) {
        struct timespec ts = {
                .tv_sec = (time_t) (realtime_usec / USEC_PER_SEC),
                .tv_nsec = (long) (realtime_usec % USEC_PER_SEC * NSEC_PER_USEC),
        };

        if (clock_settime(CLOCK_REALTIME, &ts) < 0)
                log_warning_errno(errno, "Failed to set the clock, ignoring: %m");
}

/* The kernel's pool of a restored guest is that of its siblings until this is done. */
static int entropy_add(const void *data, size_t n) {
        union {
                struct rand_pool_info info;
                uint8_t bytes[sizeof(struct rand_pool_info) + IDENTITY_ENTROPY_MAX];
        } pool = {};
        _cleanup_close_ int fd = -EBADF;

        fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
                return -errno;

        pool.info.entropy_count = (int) n * 8;
        pool.info.buf_size = (int) n;
        memcpy(pool.bytes + offsetof(struct rand_pool_info, buf), data, n);
        if (ioctl(fd, RNDADDENTROPY, &pool) < 0)
                return -errno;

        /* EBUSY before the first seed, which has then just happened */
        (void) ioctl(fd, RNDRESEEDCRNG);
        return 0;
}

static int hostname_check(const char *s, Fault *reterr) {
        size_t n = strlen(s);

        if (n == 0 || n > HOSTNAME_LEN_MAX || s[0] == '-' || s[0] == '.' ||
            s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.")])
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "hostname: expected a host name of at most %u characters.",
                                 HOSTNAME_LEN_MAX);

        return 0;
}

/* the message */

static int parse_env(const JsonField *f, json_t *v, void *field, Fault *reterr) {
        IdentityChange *c = field;

        c->has_env = true;
        return json_parse_map(f, v, &c->env, reterr);
}

static const JsonField network_fields[] = {
        { "address", json_parse_string, offsetof(IdentityChange, address), .max = 64 },
        { "gateway", json_parse_string, offsetof(IdentityChange, gateway), .max = 64 },
        { "dns", json_parse_strv, offsetof(IdentityChange, dns), .max = 16, .item_max = 64 },
        {}
};

static int parse_network(const JsonField *f, json_t *v, void *field, Fault *reterr) {
        if (!json_is_object(v))
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected an object.", f->name);

        return json_dispatch(v, network_fields, field, reterr);
}

static const JsonField identity_fields[] = {
        { "id", json_parse_string, offsetof(IdentityChange, id), .max = NAME_MAX_LEN },
        { "template", json_parse_string, offsetof(IdentityChange, template), .max = NAME_MAX_LEN },
        { "hostname", json_parse_string, offsetof(IdentityChange, hostname), .max = HOSTNAME_LEN_MAX },
        { "default_user", json_parse_string, offsetof(IdentityChange, default_user), .max = NAME_MAX_LEN },
        { "realtime_usec", json_parse_u64, offsetof(IdentityChange, realtime_usec), .max = INT64_MAX },
        { "entropy", json_parse_string, offsetof(IdentityChange, entropy),
          .max = (uint64_t) IDENTITY_ENTROPY_MAX * 2 },
        { "env", parse_env, 0, .max = ENV_MAX, .item_max = ENV_ENTRY_LEN_MAX,
          .total_max = ARGV_ENV_BYTES_MAX },
        { "network", parse_network, 0 },
        {}
};

static int network_check(const IdentityChange *c, Fault *reterr) {
        struct in_addr a;
        char address[64];
        uint32_t prefix;
        char *slash;

        STRV_FOREACH(server, c->dns) {
                uint8_t a6[sizeof(struct in6_addr)];

                if (inet_pton(AF_INET, *server, &a) != 1 && inet_pton(AF_INET6, *server, a6) != 1)
                        return fault_set(reterr, FAULT_INVALID_ARGS, "dns: expected addresses.");
        }

        if (c->gateway && inet_pton(AF_INET, c->gateway, &a) != 1)
                return fault_set(reterr, FAULT_INVALID_ARGS, "gateway: expected an IPv4 address.");
        if (!c->address)
                return 0;

        (void) snprintf(address, sizeof(address), "%s", c->address);
        slash = strchr(address, '/');
        if (slash)
                *slash++ = '\0';
        if (!slash || inet_pton(AF_INET, address, &a) != 1 || parse_u32(slash, &prefix) < 0 || prefix > 32)
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "address: expected an IPv4 address and prefix length.");
        return 0;
}

static void take_string(char **to, char **from) {
        if (!*from)
                return;

        free(*to);
        *to = TAKE_PTR(*from);
}

/* A failure here is the guest's own doing (a full or odd file system) and must not cost it its name. */
static void change_environment(Identity *i, IdentityChange *c) {
        int r;

        if (c->realtime_usec > 0)
                clock_step(c->realtime_usec);

        r = hostname_apply(strempty(i->hostname));
        if (r < 0)
                log_warning_errno(r, "Failed to set the host name, ignoring: %m");

        r = write_resolv(c->dns);
        if (r < 0)
                log_warning_errno(r, "Failed to write /etc/resolv.conf, ignoring: %m");

        if (c->address) {
                r = network_configure(c->address, c->gateway);
                if (r < 0)
                        log_warning_errno(r, "Failed to configure the network, ignoring: %m");
        }

        write_markers(i);
}

int identity_apply(Identity *i, const char *text, size_t n, Fault *reterr) {
        _cleanup_(change_done) IdentityChange c = {};
        _cleanup_json_ json_t *object = NULL;
        _cleanup_free_ void *entropy = NULL;
        size_t n_entropy = 0;
        int r;

        r = json_parse_text(text, n, &object, reterr);
        if (r < 0)
                return r;
        r = json_dispatch(object, identity_fields, &c, reterr);
        if (r < 0)
                return r;
        r = c.hostname ? hostname_check(c.hostname, reterr) : 0;
        if (r < 0)
                return r;
        r = network_check(&c, reterr);
        if (r < 0)
                return r;
        if (c.entropy && (base64_decode(c.entropy, strlen(c.entropy), &entropy, &n_entropy) < 0 ||
                          n_entropy > IDENTITY_ENTROPY_MAX))
                return fault_set(reterr, FAULT_INVALID_ARGS, "entropy: expected base64 of at most %u bytes.",
                                 IDENTITY_ENTROPY_MAX);

        if (n_entropy > 0 && !i->detached) {
                r = entropy_add(entropy, n_entropy);
                if (r < 0)
                        log_warning_errno(r, "Failed to seed the random pool, ignoring: %m");
        }

        take_string(&i->id, &c.id);
        take_string(&i->template, &c.template);
        take_string(&i->hostname, &c.hostname);
        take_string(&i->default_user, &c.default_user);
        if (c.has_env) {
                strv_free(i->env);
                i->env = TAKE_PTR(c.env);
        }
        r = process_env_build(i);
        if (r < 0)
                return fault_set_errno(reterr, r, "Cannot take the identity");

        if (!i->detached)
                change_environment(i, &c);
        return 0;
}

int identity_init(Identity *i, bool detached) {
        char *const dns[] = { (char *) GUEST_GATEWAY4, NULL };
        int r;

        *i = (Identity) { .hostname = strdup(HOSTNAME_DEFAULT),
                          .default_user = strdup("root"),
                          .detached = detached };
        if (!i->hostname || !i->default_user)
                return -ENOMEM;

        r = process_env_build(i);
        if (r < 0 || detached)
                return r;

        r = hostname_apply(i->hostname);
        if (r < 0)
                log_warning_errno(r, "Failed to set the host name, ignoring: %m");
        r = write_resolv(dns);
        if (r < 0)
                log_warning_errno(r, "Failed to write /etc/resolv.conf, ignoring: %m");
        write_markers(i);
        return 0;
}

json_t* identity_to_json(const Identity *i) {
        _cleanup_free_ char *boot_id = NULL;
        json_t *list;
        struct utsname u;

        if (read_file_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &boot_id, NULL) >= 0)
                boot_id[strcspn(boot_id, "\n")] = '\0';
        if (uname(&u) < 0)
                return NULL;

        list = json_array();
        for (size_t k = 0; k < ELEMENTSOF(features); k++)
                (void) json_array_append_new(list, json_string(features[k]));

        return json_pack("{s:s, s:i, s:o, s:s, s:s, s:I, s:s, s:s}", "version", WRENN_VERSION, "protocol",
                         (int) AGENT_PROTOCOL_VERSION, "features", list, "id", strempty(i->id), "hostname",
                         strempty(i->hostname), "uptime_usec", (json_int_t) now_usec(CLOCK_BOOTTIME),
                         "boot_id", strempty(boot_id), "kernel", u.release);
}
