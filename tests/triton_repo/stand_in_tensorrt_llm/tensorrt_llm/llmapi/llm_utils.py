def update_llm_args_with_extra_dict(llm_args, llm_args_dict, explicit_cli_keys=None):
    return {**llm_args, **llm_args_dict}
