"""Names of the options that FFmpeg's inputs take, because FFmpeg ignores one that is misspelt."""

from __future__ import annotations

from difflib import get_close_matches

from maskstream.pipeline.errors import ConfigError

# Of formats, devices and protocols in PyAV's FFmpeg 8 (a test compares them), and of its decoders.
_COMMON = """
    aa_fixed_key activation_bytes advanced_editlist allowed_extensions allowed_media_types
    allowed_segment_extensions analyzeduration audible_fixed_key audible_iv audible_key
    audio_preload auth_type auto_convert avioflags avoid_negative_ts bandwidth bit_rate
    bitrate block blocksize broadcast buffer_size burst_bits ca_file cafile cert cert_file
    cert_pem ch_layout channel channels chars_per_frame chunk_duration chunk_size chunked_post
    code_size codec_whitelist compute_pcr connect content_type cookies correct_ts_overflow
    crtc_id cryptokey decryption_iv decryption_key decryption_keys default_delay default_fps
    device draw_mouse dscp dump_separator dumpgraph duration_probesize eia608_extract
    enable_drefs encryption_iv encryption_key end end_offset err_detect export_all
    export_path_metadata export_xmp extension_picky external_sock f_err_detect f_strict fd
    fdebug fec fflags ffrtmphttp_tls fifo_size fix_teletext_pts flags flags2 flush_packets
    flv_full_metadata flv_ignore_prevtag flv_metadata follow follow_mouse format
    format_modifier format_whitelist formatprobesize fpsprobesize frame_rate frame_size
    framerate frames_per_packet ftp-anonymous-password ftp-password ftp-user
    ftp-write-seekable gateway grab_x grab_y graph graph_file hca_highkey hca_lowkey
    hca_subkey headers http_multiple http_persistent http_proxy http_seekable http_version icy
    icy_metadata_headers icy_metadata_packet ignore_chapters ignore_editlist ignore_length
    ignore_loop indexmem initial_pause initial_request_size input_format interleaved_read iv
    key key_file key_pem kind linespeed list_formats list_standards listen listen_timeout live
    live_start_index local_addr local_port local_rtcpport local_rtpport localaddr localport
    localrtcpport localrtpport location loop lowres m3u8_hold_counters max_delay max_file_size
    max_fps max_gif_delay max_interleave_delta max_packet_size max_port max_probe_packets
    max_redirects max_reload max_size max_streams max_stts_delta max_ts_probe merge_alpha
    merge_pmt_versions metadata metadata_header_padding method mime_type min_delay min_port
    mode mtu multiple_requests no_resync_search offset output_ts_offset overrun_nonfatal
    packetsize pattern_type pixel_format pkt_size plane_id post_data prefer_x_start probesize
    protocol_blacklist protocol_whitelist raw_packet_size read_ahead_limit reconnect
    reconnect_at_eof reconnect_delay_max reconnect_delay_total_max reconnect_max_retries
    reconnect_on_http_error reconnect_on_network_error reconnect_streamed recv_buffer_size
    referer region_border reorder_queue_size reply_code request_size resource
    respect_retry_after resync_size reuse reuse_socket rtbufsize rtcp_port rtcpport rtmp_app
    rtmp_buffer rtmp_conn rtmp_enhanced_codecs rtmp_flashver rtmp_flush_interval rtmp_listen
    rtmp_live rtmp_pageurl rtmp_playpath rtmp_subscribe rtmp_swfhash rtmp_swfsize rtmp_swfurl
    rtmp_swfverify rtmp_tcurl rtp_flags rtpflags rtsp_flags rtsp_transport safe sample_rate
    scan_all_pmts sdp_flags seek2any seek_streams_individually seekable seg_format_options
    seg_max_retry segment_time_metadata select_region send_buffer_size send_expect_100
    short_seek_size show_region skip_changes skip_clear skip_estimate_duration_from_pts
    skip_frame skip_idct skip_initial_bytes skip_loop_filter skip_unknown_pmt sources
    srtp_in_params srtp_in_suite srtp_out_params srtp_out_suite standard start start_number
    start_number_range start_time start_time_realtime strict strict_mime_boundary stride
    sub_name subfps tcp_keepalive tcp_mss tcp_nodelay thread_type threads timeout timestamps
    tls_verify truncate ts ts_from_file ts_id ts_packetsize ttl type udplite_coverage
    use_absolute_path use_libv4l2 use_mfra_for use_odml use_srtp use_tfdt
    use_wallclock_as_timestamps user_agent usetoc verify verifyhost video_size window_id
    write_to_source x y
"""
# Of SRT, and of cameras and screens on Windows and macOS, which not every FFmpeg has.
_ELSEWHERE = """
    audio_buffer_size audio_device_index audio_device_load audio_device_number
    audio_device_save audio_pin_name capture_cursor capture_mouse_clicks capture_raw_data
    connect_timeout crossbar_audio_input_pin_number crossbar_video_input_pin_number
    drop_late_frames enforced_encryption ffs inputbw iptos ipttl kmpreannounce kmrefreshrate
    latency linger list_devices list_options lossmaxttl maxbw messageapi minversion mss
    nakreport offset_x offset_y oheadbw passphrase payload_size pbkeylen peerlatency rcvbuf
    rcvlatency sample_size show_analog_tv_tuner_audio_dialog show_analog_tv_tuner_dialog
    show_audio_crossbar_connection_dialog show_audio_device_dialog
    show_video_crossbar_connection_dialog show_video_device_dialog smoother sndbuf
    snddropdelay srt_streamid streamid tlpktdrop transtype tsbpd tsbpddelay
    use_video_device_timestamps video_device_index video_device_load video_device_number
    video_device_save video_pin_name
"""

INPUT_OPTIONS = frozenset((_COMMON + _ELSEWHERE).split())
"""All of them."""


def check_input_option(name: str) -> None:
    """Raise `ConfigError` unless FFmpeg has an input option of this name."""
    if name in INPUT_OPTIONS:
        return
    near = get_close_matches(name, INPUT_OPTIONS, n=1)
    meant = f"; did you mean '{near[0]}'?" if near else ""
    raise ConfigError(f"FFmpeg has no input option '{name}'{meant}")
