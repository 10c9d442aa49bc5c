"""libtorrent as a program, with settings for a fast local network and nothing that reaches beyond it:

torrent.py create TORRENT PATH | seed TORRENT DIR IP | fetch TORRENT DIR IP PEER... | leech TORRENT DIR IP:PORT PEER...
"""

import os
import sys

import libtorrent as lt

SETTINGS = {
    'enable_dht': False,
    'enable_lsd': False,
    'enable_upnp': False,
    'enable_natpmp': False,
    # TCP alone: uTP is made to give way, and is slower.
    'enable_outgoing_utp': False,
    'enable_incoming_utp': False,
    # 2: never encrypted.
    'out_enc_policy': 2,
    'in_enc_policy': 2,
    'allow_multiple_connections_per_ip': True,
    'unchoke_slots_limit': -1,
    'max_out_request_queue': 2000,
    'max_allowed_in_request_queue': 4000,
    'send_buffer_watermark': 4 << 20,
    'send_buffer_watermark_factor': 150,
    'max_queued_disk_bytes': 64 << 20,
    'aio_threads': 4,
    'hashing_threads': max(1, os.cpu_count() or 1),
}


def create(torrent, path):
    """Describes a file or directory; the length of pieces is left to the library."""
    files = lt.file_storage()
    lt.add_files(files, path)
    made = lt.create_torrent(files, 0, lt.create_torrent.v2_only)
    lt.set_piece_hashes(made, os.path.dirname(path))
    with open(torrent, 'wb') as out:
        out.write(lt.bencode(made.generate()))


def seed(torrent, folder, ip):
    """Checks what is there, then serves it until ended."""
    session, handle = add(torrent, folder, f'{ip}:0')
    while not (handle.status().is_seeding and session.is_listening()):
        session.wait_for_alert(20)
        session.pop_alerts()
    print(f'ready {ip}:{session.listen_port()}', flush=True)
    while True:
        session.wait_for_alert(60_000)
        session.pop_alerts()


def fetch(torrent, folder, ip, *peers):
    """Fetches all and ends once it is on disk."""
    session, handle = add(torrent, folder, f'{ip}:0')
    wait_fetched(session, handle, peers)
    # Saying goodbye takes time and is no part of fetching.
    os._exit(0)


def leech(torrent, folder, listen, *peers):
    """Fetches all, says how many bytes came in vain, and goes on giving."""
    session, handle = add(torrent, folder, listen)
    wait_fetched(session, handle, peers)
    status = handle.status()
    print(f'done {status.total_redundant_bytes + status.total_failed_bytes}', flush=True)
    while True:
        session.wait_for_alert(60_000)
        session.pop_alerts()


def wait_fetched(session, handle, peers):
    """Waits until all is on disk."""
    for peer in peers:
        host, port = peer.split(':')
        handle.connect_peer((host, int(port)))
    while True:
        session.wait_for_alert(100)
        for alert in session.pop_alerts():
            if isinstance(alert, lt.torrent_finished_alert):
                handle.flush_cache()
            elif isinstance(alert, lt.cache_flushed_alert) and handle.status().is_seeding:
                return
            elif isinstance(alert, (lt.torrent_error_alert, lt.file_error_alert)):
                sys.exit(alert.message())


def add(torrent, folder, listen):
    """A session with that one torrent."""
    categories = lt.alert.category_t.status_notification | lt.alert.category_t.storage_notification
    categories |= lt.alert.category_t.error_notification
    session = lt.session({**SETTINGS, 'listen_interfaces': listen, 'alert_mask': categories})
    what = lt.add_torrent_params()
    what.ti = lt.torrent_info(torrent)
    what.save_path = folder
    what.flags = lt.torrent_flags.update_subscribe
    return session, session.add_torrent(what)


{'create': create, 'seed': seed, 'fetch': fetch, 'leech': leech}[sys.argv[1]](*sys.argv[2:])
