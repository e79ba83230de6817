/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "config.h"
#include "daemon/bus/bus-server.h"
#include "daemon/core/job.h"
#include "daemon/core/template.h"

#define INTERFACE BUS_NAME ".Template"

enum {
        IMPORT_OVERWRITE = 1 << 0,
};

/* --- the object ------------------------------------------------------------------------------ */

static int property_get_string(sd_bus *bus, const char *path, const char *interface, const char *property,
                               sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Template *t = userdata;
        const char *value = streq(property, "Name")     ? t->name
                            : streq(property, "Type")   ? template_type_to_string(t->type)
                            : streq(property, "Team")   ? t->team
                            : streq(property, "Digest") ? t->digest
                            : *t->default_user          ? t->default_user
                                                        : "root";

        return sd_bus_message_append(reply, "s", value);
}

static int property_get_number(sd_bus *bus, const char *path, const char *interface, const char *property,
                               sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Template *t = userdata;
        uint64_t value = streq(property, "Size")      ? t->size_bytes
                         : streq(property, "Created") ? t->created_usec
                         : t->default_memory_bytes    ? t->default_memory_bytes
                                                      : t->manager->config.default_memory_bytes;

        return sd_bus_message_append(reply, "t", value);
}

static int property_get_vcpus(sd_bus *bus, const char *path, const char *interface, const char *property,
                              sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Template *t = userdata;

        return sd_bus_message_append(reply, "u",
                                     t->default_vcpus ? t->default_vcpus : t->manager->config.default_vcpus);
}

/* Platform and ReadOnly: what came with the packages is not removed through REST. */
static int property_get_platform(sd_bus *bus, const char *path, const char *interface, const char *property,
                                 sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Template *t = userdata;

        return sd_bus_message_append(reply, "b", (int) t->platform);
}

static int property_get_aliases(sd_bus *bus, const char *path, const char *interface, const char *property,
                                sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const Template *t = userdata;

        return sd_bus_message_append_strv(reply, t->aliases);
}

static const sd_bus_vtable template_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("Name", "s", property_get_string, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Aliases", "as", property_get_aliases, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Type", "s", property_get_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Platform", "b", property_get_platform, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Team", "s", property_get_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Size", "t", property_get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Created", "t", property_get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Digest", "s", property_get_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("DefaultVCPUs", "u", property_get_vcpus, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("DefaultMemory", "t", property_get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("DefaultUser", "s", property_get_string, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("ReadOnly", "b", property_get_platform, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_VTABLE_END,
};

static int find_template(sd_bus *bus, const char *path, const char *interface, void *userdata, void **found,
                         sd_bus_error *error) {
        _cleanup_free_ char *name = NULL;
        BusServer *s = userdata;
        int r;

        r = bus_object_name(path, "template", &name);
        if (r <= 0)
                return r;
        *found = hashmap_get(s->manager->templates, name);
        return *found != NULL;
}

static int enumerate_templates(sd_bus *bus, const char *prefix, void *userdata, char ***ret_nodes,
                               sd_bus_error *error) {
        _cleanup_strv_ char **nodes = NULL;
        BusServer *s = userdata;
        Template *t;
        int r;

        HASHMAP_FOREACH(t, s->manager->templates) {
                char *path = NULL;

                r = bus_object_path("template", t->name, &path);
                if (r >= 0)
                        r = strv_consume(&nodes, path);
                if (r < 0)
                        return r;
        }
        *ret_nodes = TAKE_PTR(nodes);
        return 1;
}

static const sd_bus_vtable *const vtables[] = { template_vtable, NULL };

const BusNoun bus_noun_template = {
        .kind = "template",
        .interface = INTERFACE,
        .vtables = vtables,
        .find = find_template,
        .enumerate = enumerate_templates,
};

/* --- methods of the Manager ------------------------------------------------------------------ */

static int compare_created(const void *a, const void *b) {
        const Template *x = *(Template *const *) a, *y = *(Template *const *) b;

        if (x->created_usec != y->created_usec)
                return x->created_usec > y->created_usec ? -1 : 1;
        return strcmp(x->name, y->name);
}

/* All of a type, newest first; type "": all. An unknown type has none. */
static int list_templates(Manager *m, const char *type, Template ***ret, size_t *ret_n) {
        _cleanup_free_ Template **list = calloc(hashmap_size(m->templates) + 1, sizeof(Template *));
        Template *t;
        size_t n = 0;

        if (!list)
                return -ENOMEM;
        HASHMAP_FOREACH(t, m->templates)
                if (!*type || streq(type, template_type_to_string(t->type)))
                        list[n++] = t;
        qsort(list, n, sizeof(Template *), compare_created);
        *ret = TAKE_PTR(list);
        *ret_n = n;
        return 0;
}

static int append_template(sd_bus_message *reply, const Template *t) {
        _cleanup_free_ char *path = NULL;
        int r;

        r = bus_object_path("template", t->name, &path);
        if (r < 0)
                return r;
        return sd_bus_message_append(reply, "(ssttbo)", t->name, template_type_to_string(t->type),
                                     t->size_bytes, t->created_usec, (int) t->platform, path);
}

static int method_list_templates(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_free_ Template **list = NULL;
        BusServer *s = userdata;
        const char *type;
        size_t n = 0;
        int r;

        r = sd_bus_message_read(m, "s", &type);
        if (r >= 0)
                r = list_templates(s->manager, type, &list, &n);
        if (r >= 0)
                r = sd_bus_message_new_method_return(m, &reply);
        if (r >= 0)
                r = sd_bus_message_open_container(reply, 'a', "(ssttbo)");
        for (size_t i = 0; i < n && r >= 0; i++)
                r = append_template(reply, list[i]);
        if (r >= 0)
                r = sd_bus_message_close_container(reply);
        return r < 0 ? r : sd_bus_message_send(reply);
}

static int method_get_template(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_free_ char *path = NULL;
        BusServer *s = userdata;
        const Template *t;
        const char *name;
        int r;

        r = sd_bus_message_read(m, "s", &name);
        if (r < 0)
                return r;
        t = manager_find_template(s->manager, name, /* team= */ NULL);
        r = t ? bus_object_path("template", t->name, &path) : template_missing(name, &fault);
        return r < 0 ? bus_error_from_fault(error, r, &fault) : sd_bus_reply_method_return(m, "o", path);
}

/*
 * May the caller change templates? wrenn-rest, whom polkit is not asked about, may not: it cannot name a
 * team here. As bus_authorize().
 */
static int authorize(BusServer *s, sd_bus_message *m, const char *verb, const char *template,
                     sd_bus_error *error) {
        const char *const details[] = { "template", template, "verb", verb, NULL };
        _cleanup_(bus_caller_done) BusCaller caller = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r;

        r = bus_authorize(s, m, "manage-templates", details, &caller, error);
        if (r > 0 && caller.uid != 0 && caller.uid == polkit_trusted_uid(s->polkit)) {
                r = fault_set(&fault, FAULT_ACCESS_DENIED, "wrenn-restd may not change templates.");
                return bus_error_from_fault(error, r, &fault);
        }
        return r;
}

static int reply_job(sd_bus_message *m, const Job *j) {
        _cleanup_free_ char *path = NULL;
        int r;

        r = bus_object_path("job", job_name(j), &path);
        return r < 0 ? r : sd_bus_reply_method_return(m, "o", path);
}

static int method_build_template(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        BusServer *s = userdata;
        const char *name;
        Job *j;
        int r;

        r = sd_bus_message_read(m, "s", &name);
        if (r >= 0)
                r = bus_read_options(m, /* options= */ NULL, /* target= */ NULL, /* caller= */ NULL, &fault);
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);

        r = authorize(s, m, "build", name, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = job_build_template(s->manager, name, &j, &fault);
        return r < 0 ? bus_error_from_fault(error, r, &fault) : reply_job(m, j);
}

static int method_import_template(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        const char *format, *name;
        BusServer *s = userdata;
        uint64_t flags;
        int fd, r;
        Job *j;

        r = sd_bus_message_read(m, "hsst", &fd, &format, &name, &flags);
        if (r < 0)
                return r;
        if (!streq(format, "tar"))
                r = fault_set(&fault, FAULT_INVALID_ARGS, "format: expected 'tar'.");
        else if (flags & ~(uint64_t) IMPORT_OVERWRITE)
                r = fault_set(&fault, FAULT_INVALID_ARGS, "flags: expected 0 or 1 (overwrite).");
        if (r < 0)
                return bus_error_from_fault(error, r, &fault);

        r = authorize(s, m, "import", name, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        r = job_import_template(s->manager, name, fd, flags & IMPORT_OVERWRITE, &j, &fault);
        return r < 0 ? bus_error_from_fault(error, r, &fault) : reply_job(m, j);
}

static int method_remove_template(sd_bus_message *m, void *userdata, sd_bus_error *error) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        BusServer *s = userdata;
        const char *name;
        uint64_t flags;
        Template *t;
        int r;

        r = sd_bus_message_read(m, "st", &name, &flags);
        if (r < 0)
                return r;
        if (flags != 0) {
                r = fault_set(&fault, FAULT_INVALID_ARGS, "flags: expected 0.");
                return bus_error_from_fault(error, r, &fault);
        }

        r = authorize(s, m, "remove", name, error);
        if (r <= 0)
                return r < 0 ? r : 1;

        t = manager_find_template(s->manager, name, /* team= */ NULL);
        if (!t)
                r = template_missing(name, &fault);
        else if (!streq(t->name, name))
                r = fault_set(&fault, FAULT_INVALID_ARGS, "'%s' is an alias of template '%s'; remove that.",
                              name, t->name);
        else
                r = template_remove(t, &fault);
        return r < 0 ? bus_error_from_fault(error, r, &fault) : sd_bus_reply_method_return(m, NULL);
}

const sd_bus_vtable bus_manager_template_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("ListTemplates", SD_BUS_ARGS("s", type),
                                SD_BUS_RESULT("a(ssttbo)", templates), method_list_templates,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetTemplate", SD_BUS_ARGS("s", name), SD_BUS_RESULT("o", template),
                                method_get_template, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("BuildTemplate", SD_BUS_ARGS("s", name, "a{sv}", options),
                                SD_BUS_RESULT("o", job), method_build_template, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ImportTemplate", SD_BUS_ARGS("h", fd, "s", format, "s", name, "t", flags),
                                SD_BUS_RESULT("o", job), method_import_template, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("RemoveTemplate", SD_BUS_ARGS("s", name, "t", flags), SD_BUS_NO_RESULT,
                                method_remove_template, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

/* --- what happens ---------------------------------------------------------------------------- */

void bus_template_new(Template *t, void *userdata) {
        _cleanup_free_ char *path = NULL;
        BusServer *s = userdata;
        int r;

        r = bus_object_path("template", t->name, &path);
        if (r >= 0)
                r = sd_bus_emit_interfaces_added(s->bus, path, INTERFACE, NULL);
        if (r < 0)
                (void) log_warning_errno(r, "Failed to tell of template '%s', ignoring: %m", t->name);
}

void bus_template_changed(Template *t, const char *const *properties, void *userdata) {
        _cleanup_free_ char *path = NULL;
        BusServer *s = userdata;
        int r;

        r = bus_object_path("template", t->name, &path);
        if (r >= 0)
                r = sd_bus_emit_properties_changed_strv(s->bus, path, INTERFACE, (char **) properties);
        if (r < 0)
                (void) log_warning_errno(r, "Failed to tell of template '%s', ignoring: %m", t->name);
}

void bus_template_removed(Template *t, void *userdata) {
        _cleanup_free_ char *path = NULL;
        BusServer *s = userdata;
        int r;

        r = bus_object_path("template", t->name, &path);
        if (r >= 0)
                r = sd_bus_emit_interfaces_removed(s->bus, path, INTERFACE, NULL);
        if (r < 0)
                (void) log_warning_errno(r, "Failed to tell of template '%s', ignoring: %m", t->name);
}
