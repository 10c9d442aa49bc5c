#!/usr/bin/env python3
"""What a release is made of: supply_chain.py sbom|licences [TARGET]

Reads `cargo metadata` and `Cargo.lock`, and writes to standard output either a bill of materials (CycloneDX 1.5, JSON)
or the texts of all licences. Both name what is linked into the programs for that target (the host without one); the
bill also has what only the build runs, with scope `excluded`. The same lock file gives the same bytes: there is no time
and no path in them.
"""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAMES = ('licen', 'copying', 'notice', 'copyright', 'unlicense')


def run(*command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def host():
    return next(line.split()[1] for line in run('rustc', '-vV').splitlines() if line.startswith('host:'))


def graph(target):
    """The packages by id, the edges of the release, and the ids of the package itself, of what is linked, and of all."""
    metadata = json.loads(run('cargo', 'metadata', '--locked', '--format-version', '1', '--filter-platform', target))
    packages = {package['id']: package for package in metadata['packages']}
    own = metadata['resolve']['root']
    nodes = {node['id']: node for node in metadata['resolve']['nodes']}

    def is_macro(id):
        return any('proc-macro' in t['kind'] for t in packages[id]['targets'])

    def needed(id, kinds):
        """What it depends on; dependencies of tests are none."""
        return {d['pkg'] for d in nodes[id]['deps'] if any(k['kind'] in kinds for k in d['dep_kinds'])}

    def reach(start, step):
        seen, next_ = set(), [start]
        while next_:
            id = next_.pop()
            if id not in seen:
                seen.add(id)
                next_ += step(id)
        return seen

    linked = reach(own, lambda id: [] if is_macro(id) else [d for d in needed(id, (None,)) if not is_macro(d)])
    every = reach(own, lambda id: needed(id, (None, 'build')))
    return packages, {id: sorted(needed(id, (None, 'build')) - {own}) for id in every}, own, linked - {own}, every - {own}


def checksums():
    with open(os.path.join(ROOT, 'Cargo.lock'), 'rb') as lock:
        return {(p['name'], p['version']): p.get('checksum') for p in tomllib.load(lock)['package']}


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def licence_of(package):
    # The old form with a slash means a choice.
    return (package['license'] or '').replace('/', ' OR ')


def sbom(target):
    packages, edges, own, linked, every = graph(target)
    sums = checksums()

    def component(id):
        package = packages[id]
        found = {
            'type': 'application' if id == own else 'library',
            'bom-ref': purl(package),
            'name': package['name'],
            'version': package['version'],
            'purl': purl(package),
            'licenses': [{'expression': licence_of(package)}],
        }
        if id != own:
            found['scope'] = 'required' if id in linked else 'excluded'
            found['hashes'] = [{'alg': 'SHA-256', 'content': sums[(package['name'], package['version'])]}]
        return found

    ids = sorted(every, key=lambda id: purl(packages[id]))
    bill = {
        'bomFormat': 'CycloneDX',
        'specVersion': '1.5',
        'version': 1,
        'metadata': {'component': component(own), 'properties': [{'name': 'target', 'value': target}]},
        'components': [component(id) for id in ids],
        'dependencies': [
            {'ref': purl(packages[id]), 'dependsOn': sorted(purl(packages[d]) for d in edges[id])} for id in [own] + ids
        ],
    }
    content = json.dumps(bill, sort_keys=True)
    bill['serialNumber'] = f'urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}'
    return json.dumps(bill, indent=1, sort_keys=True) + '\n'


def texts(package):
    """The licence files of a crate: at its top, and one level below, where a crate brings foreign sources along."""
    top = os.path.dirname(package['manifest_path'])
    found = []
    for folder in [top] + sorted(e.path for e in os.scandir(top) if e.is_dir()):
        # A folder of licences (REUSE) names its files by licence.
        has_all = folder != top and os.path.basename(folder).lower().startswith(NAMES)
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if (has_all or name.lower().startswith(NAMES)) and os.path.isfile(path) and not name.endswith(('.rs', '.py', '.sh')):
                with open(path, encoding='utf-8', errors='replace') as file:
                    found.append('\n'.join(line.rstrip() for line in file.read().strip().splitlines()))
    return found


def licences(target):
    packages, _, _, linked, _ = graph(target)
    by_text, users, out = {}, {}, []
    for id in sorted(linked, key=lambda id: purl(packages[id])):
        package = packages[id]
        name = f"{package['name']} {package['version']}"
        found = texts(package)
        if not licence_of(package):
            sys.exit(f'supply_chain: {name} has no licence')
        out.append(f"{name}: {licence_of(package)}" + ('' if found else ' (its source has no text)'))
        for text in found:
            key = hashlib.sha256(text.encode()).hexdigest()
            by_text[key] = text
            users.setdefault(key, []).append(name)
    head = f'The programs for {target} contain {len(linked)} crates of others.\n\n' + '\n'.join(out) + '\n'
    parts = [f"\n{'=' * 80}\n{', '.join(users[key])}\n{'=' * 80}\n\n{by_text[key]}\n" for key in sorted(users, key=lambda k: users[k])]
    return head + ''.join(parts)


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in ('sbom', 'licences'):
        sys.exit(__doc__.splitlines()[0])
    target = sys.argv[2] if len(sys.argv) == 3 else host()
    sys.stdout.write((sbom if sys.argv[1] == 'sbom' else licences)(target))


if __name__ == '__main__':
    main()
